"""consistency: the diffusion model distilled into one and two calls."""

from ups.evaluation.correction import consistency_sampler
from ups.evaluation.ensembles import CONSISTENCY_CALLS
from ups.models.build import MODEL_FILE, load_model
from ups.models.edm import sampling_angles
from ups.models.residual import ResidualNetwork
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.stages.diffusion import FORECAST_FILE, calibrate, load_forecasts, loss_validation, residual_data
from ups.training.objectives.consistency import ConsistencyDistillation
from ups.training.train import initial_model, train_and_publish


def run(request: Request) -> None:
    """Start from the teacher's weights and train on the same residuals."""
    configuration = request.configuration
    settings, noise = configuration.training.consistency, configuration.training.diffusion.noise
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        made = load_forecasts(request.inputs["diffusion"] / FORECAST_FILE, ranks.device)
        data = residual_data(request, ranks, batch_size=settings.batch_size, made=made)
        teacher, teacher_description = load_model(request.inputs["diffusion"] / MODEL_FILE, ranks.device)
        assert isinstance(teacher, ResidualNetwork)
        sampler = {"second_sigma": settings.second_sigma, "sigma_min": noise.sigma_min}
        description = teacher_description | {"kind": "consistency", "sampler": sampler}
        model = initial_model(description, request, ranks)
        assert isinstance(model, ResidualNetwork)
        model.start_from(teacher)
        objective = ConsistencyDistillation(
            teacher, sampling_angles(settings.intervals + 1, sigma_min=noise.sigma_min, centre=noise.centre)
        )
        samplers = [consistency_sampler(calls, **sampler) for calls in CONSISTENCY_CALLS]
        train_and_publish(
            model,
            description,
            objective,
            data.source,
            loss_validation(objective, data.validation_residuals, request, ranks),
            settings,
            request,
            ranks,
            finish=lambda: calibrate(model, data, samplers, request),
        )
