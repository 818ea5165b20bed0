"""Activation checkpointing: the same bits, and less is kept for the backward pass."""

from typing import Any

import pytest
import torch
from tiny import LINE, PROBLEM, build, random_batch
from torch import Tensor, nn
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.training.prepare import prepare

OPERATORS: dict[str, dict[str, Any]] = {
    "convolution": {"width": 16, "dilations": [1, 2, 1]},
    "transformer": {"width": 16, "depth": 3, "heads": 2, "ratio": 2},
    "hybrid": {"width": 16, "dilations": [1, 2, 1], "heads": 2, "ratio": 2},
    "pdet_unet": {"width": 16, "levels": 1, "depth": 2, "heads": 2, "ratio": 2},
    "ffno": {"width": 16, "depth": 3, "modes": 4},
    "fno": {"width": 16, "depth": 3, "modes": 4, "padding": 0},
    "unet": {"width": 16, "levels": 1, "depth": 2},
}


def gradients(model: nn.Module, total: Tensor) -> dict[str, Tensor]:
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", TRAININGS)
def test_gradients_have_the_same_bits(name, every):
    found = []
    for execution in (Execution(), Execution(activation_checkpointing=every)):
        model, objective = training(name)
        prepare(model, execution)
        loss = objective(model, batch_for(name), torch.Generator().manual_seed(0))
        found.append((loss.total.detach(), gradients(model, loss.total)))
    (loss, plain), (again, less) = found
    assert torch.equal(loss, again)
    assert plain.keys() == less.keys()
    assert all(torch.equal(plain[each], less[each]) for each in plain)


@pytest.mark.parametrize("kind", OPERATORS)
def test_every_operator_keeps_less_the_more_blocks_are_computed_again(kind):
    kept = []
    for every in (0, 2, 1):
        model = build("operator", shapes={PROBLEM: LINE}, network={"kind": kind} | OPERATORS[kind])
        prepare(model, Execution(activation_checkpointing=every))
        batch = random_batch(16)
        assert batch.latents is not None
        sizes: dict[int, int] = {}

        def note(values: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[values.untyped_storage().data_ptr()] = values.untyped_storage().nbytes()
            return values

        with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
            model(batch.latents[:, 0], batch.scalars, PROBLEM)
        kept.append(sum(sizes.values()))
    assert kept[2] < kept[1] < kept[0]
