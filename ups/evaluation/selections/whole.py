"""The candidate of the best score."""

from torch import Tensor

from ups.config.selections.whole import Whole
from ups.evaluation.physical_scores import Scored


def options(_settings: Whole) -> list[None]:
    """See `ups.evaluation.selections`."""
    return [None]


def span(_settings: Whole, leads: int) -> int:
    """See `ups.evaluation.selections`."""
    return leads


def selected(scored: Scored, _settings: Whole, _option: None) -> Tensor:
    """See `ups.evaluation.selections`."""
    best = scored.totals.argmin(dim=1)
    return scored.fields[best.new_tensor(range(len(best))), best]
