"""The whole result table: trivial baselines and every forecaster on the same trajectories."""

import logging

from torch import Tensor

from ups.evaluation.baselines import persistence, spatial_mean
from ups.evaluation.score import Forecast, Scores, score
from ups.inference.forecaster import Forecaster
from ups.inference.rollout import decoded_rollout
from ups.models.codec import Codec
from ups.models.token_grid import cell_centres
from ups.runtime.randomness import torch_generator

log = logging.getLogger(__name__)


def score_all(
    codec: Codec,
    forecasters: list[Forecaster],
    truth: Tensor,
    scalars: Tensor,
    *,
    batch_size: int,
    seed: int,
) -> list[Scores]:
    """Score persistence, spatial mean and every forecaster.

    Args:
        truth: [n, 1 + t, *grid, C] physical, on the models' device.
        scalars: [S] conditioning.
        batch_size: states advanced together, members counted.
        seed: of the ensembles' noise.
    """
    steps = truth.shape[1] - 1
    coordinates = cell_centres(truth.shape[2:-1]).to(truth.device)
    results = []
    for name, baseline in (("persistence", persistence(steps)), ("spatial_mean", spatial_mean(steps))):
        results.append(score(name, baseline, truth, members=1, calls_per_step=0, batch=batch_size))
    for forecaster in forecasters:
        forecast = network_forecast(codec, forecaster, scalars, steps, coordinates, seed=seed)
        result = score(
            forecaster.name,
            forecast,
            truth,
            members=forecaster.members,
            calls_per_step=forecaster.calls_per_step,
            batch=max(1, batch_size // forecaster.members),
        )
        results.append(result)
        log.info(
            "evaluate %-20s trajectory relative L2 %.4f  %.1f s",
            forecaster.name,
            result.get("trajectory").mean().item(),
            result.seconds,
        )
    return results


def network_forecast(
    codec: Codec, forecaster: Forecaster, scalars: Tensor, steps: int, coordinates: Tensor, *, seed: int
) -> Forecast:
    """A forecaster as a function of physical first frames; its noise is a function of seed and name."""
    generator = torch_generator(seed, "ensemble", forecaster.name, device=scalars.device)

    def forecast(initial: Tensor) -> Tensor:
        return decoded_rollout(
            forecaster.step,
            codec,
            initial,
            scalars,
            steps,
            coordinates,
            members=forecaster.members,
            generator=generator,
        )

    return forecast
