"""The trivial forecasts that every table must beat."""

from torch import Tensor

from ups.evaluation.scores import Predictor


def persistence(steps: int) -> Predictor:
    """Nothing changes: the first frame for ever."""

    def predict(initial: Tensor) -> Tensor:
        return initial.flatten(1, -2)[:, None, None].expand(-1, 1, steps, -1, -1)

    return predict


def spatial_mean(steps: int) -> Predictor:
    """Everything has mixed: the mean of the first frame at every point."""

    def predict(initial: Tensor) -> Tensor:
        flat = initial.flatten(1, -2)
        return flat.mean(dim=1, keepdim=True).expand_as(flat)[:, None, None].expand(-1, 1, steps, -1, -1)

    return predict


def train_mean(mean: Tensor) -> Predictor:
    """The mean output of the train split, for maps: their first frame holds inputs and no output.

    mean: [*grid, C], per point.
    """

    def predict(initial: Tensor) -> Tensor:
        return mean.flatten(0, -2).expand(len(initial), 1, 1, -1, -1)

    return predict


def trivial_forecasts(steps: int, mean: Tensor | None) -> dict[str, Predictor]:
    """Of an evolution, persistence and the spatial mean; of a map the train split's mean, for its first frame does not hold what
    is asked for.

    mean: [*grid, C], of a map; None of an evolution.
    """
    if mean is not None:
        return {"train_mean": train_mean(mean)}
    return {"persistence": persistence(steps), "spatial_mean": spatial_mean(steps)}
