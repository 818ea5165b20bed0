"""The whole result table of a problem: trivial forecasts and every forecaster on the same trajectories."""

import logging

import torch
from torch import Tensor

from ups.evaluation.baselines import trivial_forecasts
from ups.evaluation.equivariance import equivariance_errors
from ups.evaluation.evaluation_set import EvaluationSet, ForecastInputs
from ups.evaluation.finer_grid import finer_coordinates, strided
from ups.evaluation.forecaster import Forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.evaluation.scores import Predictor, Scores, score
from ups.evaluation.surrogate import Surrogate
from ups.models.codec import ProblemCodec
from ups.runtime.randomness import torch_generator

log = logging.getLogger(__name__)

_EQUIVARIANCE_TRAJECTORIES = 4  # trajectories that equivariance is measured on


def score_all(
    surrogate: Surrogate, data: EvaluationSet, *, batch_size: int, seed: int, equivariance: bool = True
) -> list[Scores]:
    """Score the trivial forecasts and every forecaster of the problem.

    Args:
        batch_size: states advanced together, members counted; at least as many.
        seed: of the ensembles' noise.
        equivariance: measure how well the operator obeys the symmetries.
    """
    setting = data.setting
    results = [
        score(name, predict, data.truth, setting, members=1, calls_per_step=0, batch=batch_size)
        for name, predict in trivial_forecasts(data.inputs.steps, data.mean).items()
    ]
    codec = surrogate.codec.of(setting.problem)
    # Single forecasts have the batches of the ensembles, so that every row finds the operator's forecasts again.
    batch = batch_size // surrogate.members
    for forecaster in surrogate.forecasters(setting.problem):
        result = score(
            forecaster.name,
            network_predictor(codec, forecaster, data.inputs, seed=seed),
            data.truth,
            setting,
            members=forecaster.members,
            calls_per_step=forecaster.calls_per_step,
            calls_per_member=forecaster.calls_per_member,
            batch=batch,
        )
        result.seconds += forecaster.shared_seconds()
        if forecaster.name == "operator" and equivariance:
            result.equivariance = _equivariance(forecaster, codec, data, seed=seed)
            forecaster.shared_seconds()  # no row's time
        results.append(result)
        log.info(
            "evaluate %s %-20s trajectory relative L2 %.4f  %.1f s",
            setting.problem, forecaster.name, result.get("trajectory").mean().item(), result.seconds,
        )  # fmt: skip
    return results


def _equivariance(
    forecaster: Forecaster, codec: ProblemCodec, data: EvaluationSet, *, seed: int
) -> dict[str, float]:
    inputs = data.inputs
    initial = _seen(codec, data.truth[:_EQUIVARIANCE_TRAJECTORIES, 0], inputs)
    errors = equivariance_errors(
        forecaster,
        codec,
        initial,
        inputs.known,
        inputs.scalars,
        inputs.steps,
        time_step=inputs.time_step,
        parameters=inputs.parameters,
        generator=torch_generator(seed, "equivariance", codec.problem, device=initial.device),
    )
    return {str(symmetry): error for symmetry, error in errors.items()}


def _seen(codec: ProblemCodec, initial: Tensor, inputs: ForecastInputs) -> Tensor:
    """First frames [n, *grid, C] as the encoder sees them, on the models' grid."""
    frames = strided(initial, inputs.stride, len(codec.shape.grid))
    return codec.seen(frames.unsqueeze(1)).squeeze(1) if inputs.sampled else frames


def noise_of(
    codec: ProblemCodec, forecaster: Forecaster, *, seed: int, device: torch.device
) -> torch.Generator:
    """A function of seed, problem and name."""
    return torch_generator(seed, "ensemble", codec.problem, forecaster.name, device=device)


def network_predictor(
    codec: ProblemCodec,
    forecaster: Forecaster,
    inputs: ForecastInputs,
    *,
    seed: int,
    generator: torch.Generator | None = None,
) -> Predictor:
    """A forecaster as a function of physical first frames.

    The encoder sees the models' grid, or points of it; the forecast is decoded on that of the data.

    Args:
        generator: of its noise; None: `noise_of`.
    """
    grid = codec.shape.grid
    device = inputs.scalars.device
    generator = generator or noise_of(codec, forecaster, seed=seed, device=device)
    periodic = codec.shape.boundary == "periodic"
    coordinates = None
    if inputs.stride > 1:
        coordinates = finer_coordinates(grid, inputs.stride, periodic=periodic).to(device)

    def predict(initial: Tensor) -> Tensor:
        return decoded_rollout(
            forecaster,
            codec,
            _seen(codec, initial, inputs),
            inputs.known,
            inputs.scalars,
            inputs.steps,
            time_step=inputs.time_step,
            parameters=inputs.parameters,
            coordinates=coordinates,
            generator=generator,
        )

    return predict
