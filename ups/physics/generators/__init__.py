"""How rows are solved: one file per equation, with `generator(data)` and `COMPARISON`.

A generator solves numbered rows; a comparison solves those of a file again, from their first frames. Files are found by
the equation's name and not imported by whoever calls them: so a run depends on the solver that it uses, and on no
other. The equation is declared under the same name in `ups/problems/equations`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.kinds import module_of
from ups.problems import Boundary, ProblemName
from ups.problems.generated import Generated

_COURANT = 0.25

Rows = NDArray[np.int64]
Solve = Callable[[Rows, torch.device], Tensor]
"""Row numbers [n] to solved fields [n, t, *grid, C] as the file has them (of a map one frame)."""


@dataclass(frozen=True)
class Generator:
    """One problem's trajectories, solved by their numbers.

    Attributes:
        parameters: of the equation.
        distribution: whose initial states and scheme these are, for records.
    """

    solve: Solve
    parameters: dict[str, float]
    boundary: Boundary
    distribution: str = "PDEBench distribution"


@dataclass(frozen=True, eq=False)
class GivenRows:
    """Rows of a file.

    Attributes:
        fields: [n, t, *grid, C], primitive.
        domain: length of every axis.
        duration: of all frames together; 0 of a map.
    """

    fields: NDArray[np.float32]
    parameters: dict[str, float]
    boundary: Boundary
    domain: float
    duration: float

    @property
    def frames(self) -> dict[str, Any]:
        """Arguments `frame_interval` and `frames` of the solvers."""
        count = self.fields.shape[1]
        return {"frame_interval": self.duration / (count - 1), "frames": count}

    @property
    def cell(self) -> float:
        """Width of a cell of the first axis."""
        return self.domain / self.fields.shape[2]


@dataclass(frozen=True)
class Comparison:
    """What a file's rows can be compared with.

    Attributes:
        solvers: by what people call them, rows to fields [n, t, *grid, C] from the first frame; the nearest is reported.
        steps: about how many of an explicit solver the rows take: absurd fields would take for ever.
        genuine: it was held against PDEBench's own rows, and may be used on them.
    """

    solvers: Mapping[str, Callable[[GivenRows], Tensor]]
    steps: Callable[[GivenRows], float]
    genuine: bool = True


def explicit_steps(given: GivenRows, *, speed: float, viscosity: float) -> float:
    """Steps that an explicit scheme takes, by its limits for waves and for diffusion."""
    return float(given.duration / _COURANT * (speed / given.cell + 4.0 * viscosity / given.cell**2))


def comparison_of(equation: ProblemName) -> Comparison:
    """What rows of an equation are compared with."""
    return module_of("ups.physics.generators", equation).COMPARISON


def generator_of(data: Generated) -> Generator:
    """How rows of a problem are solved."""
    return module_of("ups.physics.generators", data.problem.name).generator(data)
