"""Operators: one time step in latents. One file per architecture; `network_of` builds any of them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ups.models.operators.convolution import ResidualConvolutions
from ups.models.operators.ffno import FactorizedFourierLayers, by_walls
from ups.models.operators.fno import FourierLayers
from ups.models.operators.grid_network import GridNetwork, by_axes
from ups.models.operators.hybrid import HybridNetwork
from ups.models.operators.operator import LatentOperator, NoNetwork
from ups.models.operators.pdet_unet import UNetNetwork
from ups.models.operators.transformer import TransformerNetwork
from ups.models.operators.unet import UNet
from ups.models.shape import ProblemShape

__all__ = ["LatentOperator", "network_of"]

_WITH_ATTENTION: dict[str, type[nn.Module]] = {
    "transformer": TransformerNetwork,
    "pdet_unet": UNetNetwork,
    "hybrid": HybridNetwork,
}
_ON_GRID: dict[str, type[nn.Module]] = {
    "convolution": ResidualConvolutions,
    "unet": UNet,
    "fno": FourierLayers,
    "ffno": FactorizedFourierLayers,
}
"""Bodies of a `GridNetwork`."""


def network_of(
    settings: Mapping[str, Any],
    shapes: Mapping[str, ProblemShape],
    *,
    inputs: int,
    outputs: int,
    extra_scalars: int,
) -> nn.Module:
    """The network of a kind: settings {"kind": ..., and its sizes}, tokens [B, K, inputs] to [B, K, outputs]."""
    sizes = dict(settings)
    kind = sizes.pop("kind")
    ends = {"inputs": inputs, "outputs": outputs, "extra_scalars": extra_scalars}
    if kind == "linear":
        return NoNetwork()
    if kind in _WITH_ATTENTION:
        return _WITH_ATTENTION[kind](shapes, **ends, **sizes)

    def body(shape: ProblemShape) -> nn.Module:
        told = {"periodic": shape.boundary == "periodic"} if kind == "ffno" else {}
        return _ON_GRID[kind](len(shape.grid), **told, **sizes)

    return GridNetwork(
        shapes,
        body,
        width=sizes["width"],
        perceptrons=kind in {"fno", "ffno"},
        shared=by_walls if kind == "ffno" else by_axes,
        **ends,
    )
