"""A step that can be captured: nothing in it is read by the host or made from the host's values."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tiny import optimizer_of, state_of
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import TRAININGS, batch_for, training

from ups.training.loss_scale import LossScale
from ups.training.step import Update, training_step

aten: Any = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default: "reads a value",
    aten.nonzero.default: "has a shape that depends on values",
    aten.masked_select.default: "has a shape that depends on values",
    aten.lift_fresh.default: "makes a tensor of the host's values",
    aten.lift_fresh_copy.default: "makes a tensor of the host's values",
}


class NoHost(TorchDispatchMode):
    """Fails at what would have the host wait for a GPU, or could not be captured; copies between devices there are none on a CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            raise AssertionError(f"{func} {WAITING[func]}")
        return func(*args, **(kwargs or {}))


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"matrix_learning_rate": 0.02, "momentum": 0.9},
    "soap": {"matrix_learning_rate": 3e-3, "basis_decay": 0.9, "basis_every": 2},
}
FIRST_STEPS = 4  # in which optimisers make what they remember; a mix has two turns


@pytest.mark.parametrize("autocast", [None, torch.float16])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", TRAININGS)
def test_the_host_reads_nothing_in_a_step(name, optimizer, autocast):
    """But in the first, where an optimiser makes what it remembers, which is never captured."""
    model, objective = training(name)
    chosen = optimizer_of(
        model, kind=optimizer, learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=1e-2, **OPTIMIZERS[optimizer]
    )  # fmt: skip
    state = state_of(model, objective, chosen)
    state.loss_scale = LossScale(torch.device("cpu")) if autocast else None
    update = Update(state, torch.Generator(), gradient_clip=1.0, autocast=autocast)
    for number in range(2 * FIRST_STEPS):
        batch = batch_for(name, seed=number)
        with NoHost() if number >= FIRST_STEPS else nullcontext():
            training_step(state, batch, update, learning_rate=1e-3)
    state.finiteness.check(state.step)
