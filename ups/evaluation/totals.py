"""Forecasts with the totals that the equation keeps of the first frame.

Each is moved by a constant per conserved field and lead: the nearest fields, in least squares, that have these totals. So where the truth
has them, no error grows, but for those of a gas in primitive variables, which are moved in conserved ones.

Rejected: the same for values on walls. Those of Darcy flow are known where no stored value lies. Straight lines or parabolas through the outermost
points miss them by 1 to 7 % of the solution, and candidates that are moved so are no better (docs/how-to/test-time-conditioning.md).
"""

import torch
from torch import Tensor

from ups.models.shape import ProblemShape
from ups.problems.ideal_gas import to_conserved, to_primitive


def with_totals(candidates: Tensor, first: Tensor, shape: ProblemShape) -> Tensor:
    """Candidates [n, M, t, Q, C] with the totals of their first frames [n, *grid, C], of a problem that keeps some."""
    problem = shape.problem
    converted = shape.variables == "primitive" and bool(problem.conserved_fields)
    kept = torch.tensor([field.conserved for field in problem.conserved_fields or problem.fields])
    start = first.flatten(1, -2)[:, None, None]
    states, start = (to_conserved(fields) if converted else fields for fields in (candidates, start))
    change = kept.to(states) * (start.mean(dim=3, keepdim=True) - states.mean(dim=3, keepdim=True))
    return to_primitive(states + change) if converted else states + change
