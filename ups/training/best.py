"""The best validation of a training: when it ends early, and which weights it publishes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Best:
    """The best of all validations so far.

    Attributes:
        keeps: the averaged weights of the best one, to publish them.
        error: the lowest one, mean over problems.
        step: after which it was found.
        since: validations since then.
        weights: of then, where they are kept: this rank's parts.
    """

    keeps: bool
    error: float = math.inf
    step: int = 0
    since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def note(self, step: int, errors: Mapping[str, float], averages: Mapping[str, Tensor]) -> None:
        """Take note of a validation. An error that is not finite is no lower than any.

        errors: by problem, the same on all ranks. averages: this rank's parts of the averaged weights.
        """
        error = sum(errors.values()) / len(errors)
        self.since += 1
        if not error < self.error:
            return
        self.error, self.step, self.since = error, step, 0
        if self.keeps:
            self.weights = {name: value.clone() for name, value in averages.items()}

    def numbers(self) -> dict[str, float]:
        """All but the weights, for a checkpoint."""
        return {"error": self.error, "step": self.step, "since": self.since}
