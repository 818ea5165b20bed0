"""consistency: the diffusion model distilled into one and two calls."""

from ups.diffusion.edm import noise_levels
from ups.models.build import MODEL_FILE, load_model
from ups.objectives.consistency import ConsistencyDistillation
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.stages.diffusion import loss_validation, residual_data
from ups.stages.training import initial_model, train_and_publish


def run(request: Request) -> None:
    """Start from the teacher's weights and train on the same residuals."""
    configuration = request.configuration
    settings, noise = configuration.training.consistency, configuration.training.diffusion.noise
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        data = residual_data(request, ranks, batch_size=settings.batch_size)
        teacher, teacher_description = load_model(request.inputs["diffusion"] / MODEL_FILE, ranks.device)
        description = teacher_description | {"kind": "consistency", "sigma_min": noise.sigma_min}
        model = initial_model(description, request, ranks)
        model.load_state_dict(teacher.state_dict())
        levels = noise_levels(
            settings.intervals + 1, sigma_min=noise.sigma_min, sigma_max=noise.sigma_max, rho=noise.rho
        )
        objective = ConsistencyDistillation(teacher, levels)
        validation = loss_validation(objective, data.validation, request, ranks)
        train_and_publish(model, description, objective, data.source, validation, settings, request, ranks)
