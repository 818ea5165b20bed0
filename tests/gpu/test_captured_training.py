"""What only a GPU can show of training: a captured step gives the bits of the step that was captured."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import optimizer_of, state_of
from torch import Tensor
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.errors import NotFiniteError
from ups.runtime.precision import AUTOCAST, tensor_float_32
from ups.runtime.randomness import derive_seed
from ups.runtime.ranks import Ranks
from ups.training.capture import CapturedUpdate
from ups.training.loss_scale import LossScale
from ups.training.objectives.joint import JointLoss
from ups.training.objectives.operator import RolloutLoss
from ups.training.step import TrainingState, Update, training_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"matrix_learning_rate": 0.02, "momentum": 0.9},
}
COUNTING_ON_THE_HOST: dict[str, dict[str, Any]] = {
    "soap": {"matrix_learning_rate": 3e-3, "basis_decay": 0.9, "basis_every": 2},
    "adamw_8bit": {},
}


def trained(
    name: str,
    optimizer: str,
    *,
    captured: bool,
    poison: int | None = None,
    accumulation: int = 1,
    execution: Execution | None = None,
) -> tuple[TrainingState, list[dict[str, float]]]:
    """Sixteen steps, whose rollouts grow in the middle where there are any. Records are read at the end."""
    device, execution = torch.device("cuda", 0), execution or Execution()
    model, objective = training(name, device)
    if isinstance(objective, RolloutLoss):
        objective.rollout_start = 6
    if isinstance(objective, JointLoss):
        objective.settings = replace(objective.settings, ramp=12)
    settings = {"learning_rate": 1e-3, "betas": (0.9, 0.95), "weight_decay": 1e-2}
    chosen = optimizer_of(model, kind=optimizer, **settings, **(OPTIMIZERS | COUNTING_ON_THE_HOST)[optimizer])
    ranks = Ranks(0, 1, device)
    state = state_of(model, objective, chosen, ranks=ranks, execution=execution)
    state.loss_scale = LossScale(device) if execution.precision == "fp16" else None
    generator = torch.Generator(device)
    update = Update(
        state,
        generator,
        gradient_clip=1.0,
        autocast=AUTOCAST.get(execution.precision),
        accumulation=accumulation,
    )
    take = CapturedUpdate(update) if captured else update
    records = []
    for step in range(16):
        batch = replace(batch_for(name, seed=step).to(device), step=step)
        if step == poison:
            assert batch.fields is not None
            batch.fields.fill_(torch.nan)
        generator.manual_seed(derive_seed(0, "noise", step))
        with tensor_float_32(allowed=execution.precision == "tf32"):
            records.append(training_step(state, batch, take, learning_rate=1e-3 * (1 + step % 5)))
    return state, [{name: value.item() for name, value in logged.items()} for logged in records]


def weights(state: TrainingState) -> dict[str, Tensor]:
    averages = {f"average {name}": value for name, value in state.ema.weights.items()}
    return {name: value.detach() for name, value in state.replica.parameters.items()} | averages


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulation": 2},
        {"execution": Execution(precision="bf16")},
        {"execution": Execution(precision="fp16")},
        {"execution": Execution(precision="tf32", activation_checkpointing=1)},
    ],
    ids=["fp32", "accumulation", "bf16", "fp16", "tf32-checkpointing"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", TRAININGS)
def test_captured_steps_are_the_steps_bit_for_bit(name, optimizer, options):
    """What differs between steps, the batch, the noise, the rate and the average's decay, is read from memory."""
    (plain, expected), (captured, found) = (
        trained(name, optimizer, captured=captured, **options) for captured in (False, True)
    )
    assert found == expected
    for each, value in weights(plain).items():
        assert torch.equal(value, weights(captured)[each]), each
    assert len({record["loss"] for record in found}) == len(found)


@pytest.mark.parametrize("optimizer", COUNTING_ON_THE_HOST)
def test_a_loss_is_scaled_for_optimisers_that_count_steps_on_the_host(optimizer):
    _, records = trained("operator", optimizer, captured=False, execution=Execution(precision="fp16"))
    assert all(math.isfinite(value) for record in records for value in record.values())


def test_a_step_that_is_not_finite_is_told_though_the_host_reads_nothing():
    state, _ = trained("augmented", "muon", captured=True, poison=9)
    with pytest.raises(NotFiniteError, match="step 9: loss nan"):
        state.finiteness.check(state.step)
