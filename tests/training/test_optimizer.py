"""Every trainable weight is optimised once, and only matrices decay."""

import pytest
import torch
from tiny import build, optimizer_of
from torch import nn

SETTINGS = {"kind": "adamw", "learning_rate": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.5}


@pytest.mark.parametrize("kind", ["autoencoder", "operator", "diffusion", "consistency"])
def test_every_trainable_parameter_is_claimed_exactly_once(kind):
    model = build(kind)
    frozen = next(model.parameters()).requires_grad_(False)
    claimed = [id(p) for group in optimizer_of(model, **SETTINGS).param_groups for p in group["params"]]
    assert sorted(claimed) == sorted(id(p) for p in model.parameters() if p is not frozen)


def test_only_matrices_decay():
    model = nn.Linear(3, 3)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer_of(model, **SETTINGS).step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 1e-2 * 0.5))
    assert torch.equal(model.bias, before["bias"])
