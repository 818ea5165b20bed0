"""The mean of candidates, weighted by their scores."""

import torch
from torch import Tensor

from ups.config.selections.softmax import Softmax
from ups.evaluation.physical_scores import Scored


def options(settings: Softmax) -> list[float]:
    """See `ups.evaluation.selections`."""
    return list(settings.temperatures)


def span(_settings: Softmax, leads: int) -> int:
    """See `ups.evaluation.selections`."""
    return leads


def selected(scored: Scored, _settings: Softmax, temperature: float) -> Tensor:
    """See `ups.evaluation.selections`. Scores are taken in units of the best one, so that a temperature fits all trajectories."""
    totals = scored.totals
    best = totals.amin(dim=1, keepdim=True).clamp_min(1e-12)
    # Where no candidate is a state of the equation, the uncorrected forecast stays.
    relative = torch.where(best.isfinite(), totals / best - 1, torch.inf)
    relative[:, 0] = torch.where(best[:, 0].isfinite(), relative[:, 0], 0.0)
    weights = torch.softmax(-relative / temperature, dim=1)
    finite = torch.where(weights[:, :, None, None, None] > 0, scored.fields, 0.0)
    return torch.einsum("nm,nmtqc->ntqc", weights, finite)
