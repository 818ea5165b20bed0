"""What networks in fewer bits keep in float32, and what that is worth."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny import LINE, NETWORK, PROBLEM, SQUARE, build, waves
from torch import Tensor, nn

from ups.models.float32 import Float32Linear
from ups.models.operators import LatentOperator

OPERATORS: dict[str, dict[str, Any]] = {
    "convolution": {"dilations": [1, 2, 1]},
    "transformer": {"depth": 4, "heads": 2, "ratio": 2},
    "hybrid": {"dilations": [1, 2], "heads": 2, "ratio": 2},
    "pdet_unet": {"levels": 1, "depth": 2, "heads": 2, "ratio": 2},
    "ffno": {"depth": 3, "modes": 4},
    "fno": {"depth": 3, "modes": 4, "padding": 0},
    "unet": {"levels": 1, "depth": 2},
}
NETWORKS = [*OPERATORS, "ffno between walls", "autoencoder", "diffusion"]


def network(name: str) -> Callable[[], Tensor]:
    """One forward pass of a network with random weights."""
    generator = torch.Generator().manual_seed(1)
    if name == "autoencoder":
        size = NETWORK | {"width": 32, "depth": 3}
        model = build(name, scale=0.05, encoder=size, decoder=size)
        fields = waves(16, 1)[:, 0]
        return lambda: model(fields, None, PROBLEM)
    if name == "diffusion":
        size = {"width": 32, "blocks": 2, "dilations": [1, 2], "leads_per_position": 2}
        model = build(name, scale=0.05, network=size)
        y, context = torch.randn(16, 3, 8, 9, generator=generator).split([4, 5], dim=-1)
        scalars = torch.randn(16, 4, generator=generator)
        return lambda: model(y, torch.linspace(0.1, 1.4, 16), context, scalars, PROBLEM)
    kind, _, walls = name.partition(" ")
    problem, shape = ("square", SQUARE) if walls else (PROBLEM, LINE)
    settings = {"kind": kind, "width": 32} | OPERATORS[kind]
    operator = build("operator", scale=0.05, shapes={problem: shape}, network=settings)
    assert isinstance(operator, LatentOperator)
    tokens = torch.randn(16, shape.token_grid.token_count, 4, generator=generator)
    scalars = torch.randn(16, shape.scalars, generator=generator)
    return lambda: operator.network(tokens, scalars, problem)


@contextmanager
def without_float32():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Float32Linear, "forward", nn.Linear.forward)
        yield


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_maps_in_and_out_in_float32_bring_a_network_nearer_to_one_in_float32(name, dtype):
    """By a quarter to fifteen times: the more, the less its blocks do beside the stream that they add to."""
    compute = network(name)
    exact = compute()

    def distance() -> float:
        with torch.autocast("cpu", dtype=dtype):
            found = compute()
        return ((found.float() - exact).norm() / exact.norm()).item()

    with torch.autocast("cpu", dtype=dtype):
        assert compute().dtype == torch.float32
    kept = distance()
    with without_float32():
        assert 0 < kept < 0.8 * distance()
    assert kept < torch.finfo(dtype).eps
