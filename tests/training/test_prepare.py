"""Activation checkpointing: the same bits, and less is kept for the backward pass."""

import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from tiny import LINE, PROBLEM, build, random_batch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


@pytest.mark.parametrize("every", [1, 2, "products"])
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


class Storages(TorchDispatchMode):
    """Of all that operators give, how much is still there: what autograd keeps, or a checkpoint by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._seen.add(value.untyped_storage())
        return result

    def bytes(self) -> int:
        gc.collect()
        return sum({storage.data_ptr(): storage.nbytes() for storage in self._seen}.values())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "transformer" else pytest.mark.slow) for kind in OPERATORS],
)
def test_every_operator_keeps_less_the_more_is_computed_again(kind):
    kept: dict[Any, int] = {}
    for again in (0, "products", 2, 1):
        model = build("operator", shapes={PROBLEM: LINE}, network={"kind": kind} | OPERATORS[kind])
        prepare(model, Execution(activation_checkpointing=again))
        batch = random_batch(4)
        assert batch.latents is not None
        with Storages() as storages:
            result = model(batch.latents[:, 0], batch.scalars, PROBLEM)
        kept[again] = storages.bytes()
        del result
    assert kept[1] < kept[2] < kept[0]
    assert kept[1] <= kept["products"] < kept[0]
    assert kept[1] < kept["products"] or kind == "convolution"  # whose blocks end in their only product


def test_what_needs_blocks_says_where_there_are_none(caplog):
    asked = Execution(compile="blocks", activation_checkpointing="products")
    with caplog.at_level(logging.WARNING):
        prepare(build("operator"), asked)
        assert not caplog.records
        prepare(build("operator", network={"kind": "linear"}, linear_path="trained"), asked)
    assert [record.getMessage() for record in caplog.records] == [
        f"execution.{key} changes nothing here: this model has no blocks"
        for key in ("compile: blocks", "activation_checkpointing")
    ]
