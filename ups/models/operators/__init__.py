"""Operators: one time step in latents. One file per architecture; `network_of` builds any of them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ups.models.operators.convolution import ResidualConvolutions
from ups.models.operators.ffno import FactorizedFourierLayers, by_walls
from ups.models.operators.fno import FourierLayers
from ups.models.operators.grid_network import GridNetwork
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
    if kind in _WITH_ATTENTION:
        return _WITH_ATTENTION[kind](shapes, **ends, **sizes)
    on_grid: dict[str, Any] = {"width": sizes.get("width", 0)} | ends
    match kind:
        case "linear":
            return NoNetwork()
        case "convolution":
            return GridNetwork(
                shapes, lambda shape: ResidualConvolutions(len(shape.grid), **sizes), **on_grid
            )
        case "unet":
            return GridNetwork(shapes, lambda shape: UNet(len(shape.grid), **sizes), **on_grid)
        case "fno":
            return GridNetwork(
                shapes, lambda shape: FourierLayers(len(shape.grid), **sizes), perceptrons=True, **on_grid
            )
        case "ffno":
            return GridNetwork(
                shapes,
                lambda shape: FactorizedFourierLayers(
                    len(shape.grid), periodic=shape.boundary == "periodic", **sizes
                ),
                perceptrons=True,
                shared=by_walls,
                **on_grid,
            )
        case _:
            raise ValueError(f"unknown kind of operator: {kind}")
