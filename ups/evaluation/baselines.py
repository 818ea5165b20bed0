"""The trivial forecasts that every table must beat."""

from torch import Tensor

from ups.evaluation.score import Forecast


def persistence(steps: int) -> Forecast:
    """Nothing changes: the first frame for ever."""

    def forecast(initial: Tensor) -> Tensor:
        return initial.flatten(1, -2)[:, None, None].expand(-1, 1, steps, -1, -1)

    return forecast


def spatial_mean(steps: int) -> Forecast:
    """Everything has mixed: the conserved mean of the first frame at every point."""

    def forecast(initial: Tensor) -> Tensor:
        flat = initial.flatten(1, -2)
        return flat.mean(dim=1, keepdim=True).expand_as(flat)[:, None, None].expand(-1, 1, steps, -1, -1)

    return forecast
