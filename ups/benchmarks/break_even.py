"""What a surrogate saves: the solver's time at its error, and after how many solves its making is paid for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple


class Point(NamedTuple):
    """A way to get trajectories: its error, and its seconds per trajectory; both above 0."""

    error: float
    seconds: float


@dataclass(frozen=True)
class EqualError:
    """The solver's seconds per trajectory at some error.

    Attributes:
        bound: "at least": the error is below that of the finest grid, whose seconds these are; "at most": it is above that
            of the coarsest.
    """

    seconds: float
    bound: Literal["", "at least", "at most"] = ""


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both, fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.seconds, point.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def at_equal_error(curve: Sequence[Point], error: float) -> EqualError:
    """Along the Pareto front of a solver's grids, straight between them in logarithms of both.

    Nothing is extrapolated: no grid was measured there.

    Raises:
        ValueError: the curve has no point.
    """
    front = pareto(curve)
    if not front:
        raise ValueError("a curve without points")
    if error >= front[0].error:
        return EqualError(front[0].seconds, "" if error == front[0].error else "at most")
    for coarse, fine in pairwise(front):
        if fine.error <= error:
            part = math.log(coarse.error / error) / math.log(coarse.error / fine.error)
            return EqualError(coarse.seconds * (fine.seconds / coarse.seconds) ** part)
    return EqualError(front[-1].seconds, "at least")


def break_even(invested: float, solver: float, model: float) -> int | None:
    """The number of trajectories after which data and training, `invested` seconds, are paid for; None: never.

    solver, model: seconds per trajectory.
    """
    return math.ceil(invested / (solver - model)) if solver > model else None
