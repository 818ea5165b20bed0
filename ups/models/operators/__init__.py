"""Operators: one time step in latents. One file per kind, with `network(shapes, ...)`; `network_of` finds it by name.

Their settings have the same names in `ups/config/operators`.

They are not conditioned alike: `convolution`, `unet`, `fno` and `ffno` add the condition once, to the tokens that enter (the first
also modulates every convolution by it, where asked); `transformer`, `hybrid` and `pdet_unet` have it in every block. A table that
compares them compares that too.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ups.kinds import module_of
from ups.models.operators.linear import LinearPath, fits
from ups.models.operators.operator import LatentOperator
from ups.models.shape import ProblemShape

__all__ = ["LatentOperator", "build", "network_of"]


def build(description: Mapping[str, Any], shapes: Mapping[str, ProblemShape]) -> LatentOperator:
    """See `ups.models.build`."""
    dim, paths = description["latent_dim"], description["linear_path"]
    return LatentOperator(
        network_of(description["network"], shapes, inputs=dim, outputs=dim, extra_scalars=0),
        shapes,
        dim,
        linear={
            name: LinearPath(shape.token_grid, dim, trained=paths.get(name) == "trained")
            for name, shape in shapes.items()
            if fits(shape.token_grid, dim)
        },
        linear_path=paths,
        conserve=description["conserve"],
        time_steps=description["time_steps"],
        average=description["average"],
    )


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
