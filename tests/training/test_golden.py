"""The losses of twenty steps of every objective, as they were when somebody last looked.

A change that alters the numbers on purpose renews the file and says so:

    UPS_RENEW_GOLDEN=1 python -m pytest tests/training/test_golden.py

Measured: other vector instructions, other libraries' kernels and two threads change them by less than 1e-5.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from tiny import optimizer_of, state_of
from trainings import TRAININGS, batch_for, training

from ups.runtime.randomness import derive_seed
from ups.training.schedules import learning_rate
from ups.training.step import Update, training_step

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 20


def losses(name: str) -> list[float]:
    model, objective = training(name)
    optimizer = optimizer_of(model, kind="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=1e-2)
    state = state_of(model, objective, optimizer)
    generator = torch.Generator()
    update = Update(state, generator, gradient_clip=1.0)
    trace = []
    for step in range(STEPS):
        generator.manual_seed(derive_seed(0, name, "noise", step, 0))
        rate = learning_rate(step, steps=STEPS, warmup=3, peak=1e-3, final=1e-5, schedule={"kind": "cosine"})
        logged = training_step(state, batch_for(name, seed=step), update, learning_rate=rate)
        trace.append(logged["loss"].item())
    averaged = torch.stack([weight.square().sum() for weight in state.ema.weights.values()]).sum()
    return [*trace, averaged.item()]


@pytest.mark.parametrize("name", TRAININGS)
def test_the_losses_are_those_of_the_file(name):
    trace = losses(name)
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("UPS_RENEW_GOLDEN"):
        GOLDEN.write_text(json.dumps(known | {name: trace}, indent=1) + "\n")
        return
    assert trace == pytest.approx(known[name], rel=1e-4)
