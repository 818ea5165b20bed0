"""Every trainable weight is optimised once, and only matrices decay."""

import logging

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


def test_the_log_says_once_which_weights_learn_at_which_rate(caplog):
    model = nn.ModuleDict(
        {"inlet": nn.Linear(3, 4), "blocks": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])}
    )
    with caplog.at_level(logging.INFO):
        muon = SETTINGS | {"kind": "muon", "matrix_learning_rate": 0.02, "momentum": 0.9}
        optimizer = optimizer_of(model, **muon)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert caplog.messages == [
        "muon, matrices: 1 tensors, 12 weights, learning rate 0.01, decay 0.5",
        "muon, gains and biases: 3 tensors, 12 weights, learning rate 0.01, decay 0",
        "muon, hidden matrices: 2 tensors, 32 weights, learning rate 0.02, decay 0.5",
    ]
