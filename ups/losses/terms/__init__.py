"""Terms beside the operator's loss, one file per kind, with `term(error, target, ...)`, a mean.

error, target: [B, T, *grid, C], the error of the predicted frames' scored fields and what it is relative to, in physical
units. Settings have the same names in `ups/config/loss_terms`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ups.kinds import module_of


def loss_term(kind: str, error: Tensor, target: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """The term of a kind; settings: those of the kind alone, without its weight."""
    return module_of("ups.losses.terms", kind).term(error, target, **settings)
