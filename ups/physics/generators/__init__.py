"""How numbered rows of generated data are solved: one file per equation, each with `generator(data) -> Generator`.

They are found by the name that the data give and not imported by whoever calls them: so a run depends on the solver
that it uses, and on no other.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.config.data import Generated
from ups.problems import Boundary

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


def generator_of(data: Generated) -> Generator:
    """How rows of a problem are solved."""
    return importlib.import_module(data.generator).generator(data)
