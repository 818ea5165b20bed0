"""Operators: one time step in latents. One file per architecture; `network_of` builds any of them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ups.models.operators.convolution import ConvolutionNetwork
from ups.models.operators.fno import FourierNetwork
from ups.models.operators.hybrid import HybridNetwork
from ups.models.operators.operator import LatentOperator, NoNetwork
from ups.models.operators.pdet_unet import UNetNetwork
from ups.models.operators.transformer import TransformerNetwork
from ups.models.operators.unet import ConvolutionalUNet
from ups.models.shape import ProblemShape

__all__ = ["LatentOperator", "network_of"]

_KINDS: dict[str, type[nn.Module]] = {
    "transformer": TransformerNetwork,
    "convolution": ConvolutionNetwork,
    "pdet_unet": UNetNetwork,
    "hybrid": HybridNetwork,
    "fno": FourierNetwork,
    "unet": ConvolutionalUNet,
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
    if kind == "linear":
        return NoNetwork()
    return _KINDS[kind](shapes, inputs=inputs, outputs=outputs, extra_scalars=extra_scalars, **sizes)
