"""The best sequence of segments of candidates.

Which candidate goes before decides what the next segment costs, and nothing earlier does: its first frame should be what
the equation makes of the last one. So the best of all sequences is found step by step (Viterbi 1967), as by a beam as wide as
there are candidates that looks ahead to the end. Rejected: a narrower beam, or one that looks less far ahead: what is dear is the
solver's step of every frame, which is taken already, and a beam can lose the best sequence.
"""

import torch
from torch import Tensor

from ups.config.selections.segments import Segments
from ups.evaluation.physical_scores import Scored


def options(_settings: Segments) -> list[None]:
    """See `ups.evaluation.selections`."""
    return [None]


def span(settings: Segments, leads: int) -> int:
    """See `ups.evaluation.selections`."""
    return min(settings.leads, leads)


def selected(scored: Scored, settings: Segments, _option: None) -> Tensor:
    """See `ups.evaluation.selections`."""
    leads = scored.fields.shape[2]
    starts = range(0, leads, settings.leads)
    total, came_from = None, []
    for start in starts:
        own = scored.costs[:, :, start : start + settings.leads].sum(dim=2)
        if total is None:
            total = own
            continue
        costs = total[:, :, None] + own[:, None] + _splices(scored, start)  # [n, before, after]
        total, before = costs.nan_to_num(torch.inf, torch.inf, torch.inf).min(dim=1)
        came_from.append(before)
    assert total is not None
    chosen = [total.argmin(dim=1)]
    for before in reversed(came_from):
        chosen.append(before.gather(1, chosen[-1][:, None])[:, 0])
    rows = torch.arange(len(total), device=total.device)
    parts = [
        scored.fields[rows, index, start : start + settings.leads]
        for start, index in zip(starts, reversed(chosen), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _splices(scored: Scored, lead: int) -> Tensor:
    """What the residual of a segment's first frame costs more if another candidate goes before, [n, before, after]."""
    frames, moved = scored.fields[:, :, lead], scored.moved[:, :, lead]
    squares = (frames[:, None] - moved[:, :, None]).square().mean(dim=(3, 4))
    return scored.weight * (squares - squares.diagonal(dim1=1, dim2=2)[:, None])
