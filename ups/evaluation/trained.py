"""A trained surrogate with all that its use needs, whether a run or one file holds it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ups.config.stages.evaluate import Evaluation
from ups.evaluation.conditioning import Fit
from ups.evaluation.surrogate import Surrogate
from ups.evaluation.usage import Usage

NOT_KEPT = (
    "what validation trajectories chose for it was not kept: evaluate the run again, and export it again"
)
"""Of test-time conditioning in runs and files of earlier versions."""


@dataclass(frozen=True, eq=False)
class Trained:
    """
    Attributes:
        usages: by problem.
        means: of the train split's outputs, [*grid, C] by problem that is a map: what a forecast of it must beat.
        evaluation: how its run was scored.
        seed: of its run.
        fits: of test-time conditioning, by problem; empty where it is off.
        results: records of its run's table; empty where the run was not evaluated.
        provenance: run, commit, library, digests of the artifacts.
    """

    surrogate: Surrogate
    usages: dict[str, Usage]
    means: dict[str, Tensor]
    evaluation: Evaluation
    seed: int
    fits: dict[str, Fit]
    results: list[dict[str, Any]]
    provenance: dict[str, Any]
