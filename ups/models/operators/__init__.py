"""Operators: one time step in latents. One file per kind, with `network(shapes, ...)`; `network_of` finds it by name.

Their settings have the same names in `ups/config/operators`.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ups.kinds import module_of
from ups.models.operators.operator import LatentOperator
from ups.models.shape import ProblemShape

__all__ = ["LatentOperator", "network_of"]


def network_of(
    settings: Mapping[str, Any],
    shapes: Mapping[str, ProblemShape],
    *,
    inputs: int,
    outputs: int,
    extra_scalars: int,
) -> nn.Module:
    """The network of a kind, for tokens [B, K, inputs] to [B, K, outputs].

    Args:
        settings: {"kind": ..., and its sizes}.
        extra_scalars: conditioning scalars beside those of the problem.

    Raises:
        ValueError: there is no such kind.
    """
    sizes = dict(settings)
    kind = module_of("ups.models.operators", sizes.pop("kind"))
    return kind.network(shapes, inputs=inputs, outputs=outputs, extra_scalars=extra_scalars, **sizes)
