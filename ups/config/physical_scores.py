"""By what a forecast can be scored without the truth: which equations have which of these."""

from typing import Literal, get_args

from ups.kinds import kinds_of
from ups.problems.problem import Boundary, Problem, Variables

PhysicalScore = Literal["residual", "conservation", "energy", "maximum", "entropy", "boundary"]
PHYSICAL_SCORES: tuple[PhysicalScore, ...] = get_args(PhysicalScore)

REFINED = frozenset({"burgers1d", "compressible1d"})
"""Equations whose residual depends on the solver's grid: advection is solved exactly, Darcy flow has the residual of its own grid."""


def totals_kept(problem: Problem, boundary: Boundary) -> bool:
    """Whether the equation keeps a total of its first frame: nothing leaves a periodic domain."""
    fields = problem.conserved_fields or problem.fields
    return boundary == "periodic" and not problem.is_map and any(field.conserved for field in fields)


def scores_of(
    problem: Problem, boundary: Boundary, variables: Variables = "primitive"
) -> tuple[PhysicalScore, ...]:
    """The scores that an equation has with a boundary.

    residual: it has a file in `ups/physics/defects`. A state of one dissipated field is that of a scalar conservation
    law, which never makes a new extreme.
    """
    fields = problem.fields_in(variables)
    closed = boundary == "periodic" and not problem.is_map
    found: dict[PhysicalScore, bool] = {
        "residual": problem.name in kinds_of("ups.physics.defects"),  # names of files: nothing is imported
        "conservation": closed and any(field.conserved for field in fields),
        "energy": closed and any(field.dissipated for field in fields),
        "maximum": closed and len(fields) == 1 and fields[0].dissipated,
        "entropy": closed and {"density", "pressure"} <= {field.name for field in problem.fields},
        "boundary": boundary == "dirichlet",
    }
    return tuple(score for score, present in found.items() if present)
