"""Every training that a configuration can describe goes on bit for bit after SIGKILL: optimisers, schedules, precisions, ways to share
the work and stages, as the configuration's own unions list them."""

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ranked import run_ranks
from torch import Tensor, nn
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.config.training import OPTIMIZERS, SCHEDULES, Training
from ups.data.batch import Batch
from ups.runtime.ranks import Ranks
from ups.training.loop import Errors, Validation, train
from ups.training.step import TrainingState

STEPS, CHECKPOINT_EVERY = 8, 3
KILLED_AT = {"between checkpoints": 5, "at a checkpoint": 6, "at the last step": STEPS - 1}
WAYS = get_args(Execution.model_fields["data_parallel"].annotation)
PRECISIONS = sorted({*get_args(Execution.model_fields["precision"].annotation)} - {"tf32"})  # of GPUs alone


class Source:
    """Batches that are functions of the step, of which each rank has its share; ends the process at one of them, once the
    checkpoint before is on disk."""

    def __init__(self, name: str, ranks: Ranks, work: Path, die_at: int | None) -> None:
        self.name, self.ranks, self.work, self.die_at = name, ranks, work, die_at

    def batch(self, step: int) -> Batch:
        if step == self.die_at and self.ranks.rank == self.ranks.world - 1:
            written = (step - 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
            while written and not list((self.work / "checkpoints").glob(f"step-{written:08d}-*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        batch = replace(batch_for(self.name, seed=step), step=step)
        return batch.each(lambda value: value[self.ranks.rank :: self.ranks.world])

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


def of_weights(model: nn.Module) -> Errors:
    return {"all": torch.stack([weight.square().mean() for weight in model.parameters()]).mean()[None]}


def trained(
    ranks: Ranks,
    work: str,
    name: str,
    kinds: tuple[str, str],
    execution: dict[str, Any],
    die_at: int | None,
) -> dict[str, Tensor]:
    """All that a training has at its end and this rank holds.

    kinds: of the optimiser and the schedule, with their defaults.
    """
    settings = Training.model_validate(
        {
            "batch_size": 8,
            "steps": STEPS,
            "optimizer": {"kind": kinds[0]},
            "schedule": {"kind": kinds[1]},
            "warmup_steps": 2,
            "weight_decay": 1e-2,
            "ema_decay": 0.9,
            "checkpoint_every": CHECKPOINT_EVERY,
            "log_every": 2,
            "validate_every": 4,
        }
    )
    model, objective = training(name)
    state = train(
        model,
        objective,
        Source(name, ranks, Path(work), die_at),
        Validation("weights", of_weights),
        settings,
        ranks,
        Path(work),
        stage="operator",
        seed=1,
        execution=Execution.model_validate({"processes": ranks.world, "threads": 1} | execution),
    )
    return everything(state)


def everything(state: TrainingState) -> dict[str, Tensor]:
    found = dict(state.replica.whole_tensors())
    found |= {f"average {name}": value for name, value in state.ema.weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        found |= {f"optimizer {index} {slot}": value for slot, value in slots.items()}
    found |= state.loss_scale.state if state.loss_scale else {}
    return {name: value.detach().clone() for name, value in found.items()}


@cache
def uninterrupted(world: int, name: str, kinds: tuple[str, str], execution: tuple) -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory() as work:
        found = run_ranks(trained, world, work, name, kinds, dict(execution), None)
    # Copies: what came from another process holds a file descriptor each.
    return [{key: value.clone() for key, value in tensors.items()} for tensors in found]


def same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def check(
    tmp_path: Path, world: int, name: str, kinds: tuple[str, str], die_at: int, **execution: str
) -> None:
    reference = uninterrupted(world, name, kinds, tuple(execution.items()))
    with pytest.raises(EOFError):
        run_ranks(trained, world, str(tmp_path), name, kinds, execution, die_at)
    assert list((tmp_path / "checkpoints").glob("step-*"))
    same(run_ranks(trained, world, str(tmp_path), name, kinds, execution, None), reference)


def cells(*unions: Any, fast: Any) -> list[Any]:
    """The product of unions; those that are not fast are long tests."""
    return [pytest.param(*cell, marks=() if fast(*cell) else pytest.mark.long) for cell in product(*unions)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer", "schedule", "precision"),
    cells(
        TRAININGS,
        OPTIMIZERS,
        SCHEDULES,
        PRECISIONS,
        fast=lambda name, optimizer, schedule, precision: (
            (name == "operator") + (schedule == "cosine") + (precision == "fp32") + (optimizer == "muon") > 2
        ),
    ),
)
def test_a_killed_process_goes_on_bit_for_bit(tmp_path, name, optimizer, schedule, precision):
    check(tmp_path, 1, name, (optimizer, schedule), KILLED_AT["between checkpoints"], precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer", "way", "when"),
    cells(
        TRAININGS,
        OPTIMIZERS,
        WAYS,
        KILLED_AT,
        fast=lambda name, optimizer, way, when: (
            name == "mix" and optimizer == "muon" and (when == "between checkpoints" or way == "fsdp")
        ),
    ),
)
def test_three_ranks_of_which_one_was_killed_go_on_bit_for_bit(tmp_path, name, optimizer, way, when):
    """Three: of two numbers the order of a sum does not matter."""
    if way == "fsdp" and (name == "joint" or optimizer in {"adamw_8bit", "soap"}):
        pytest.skip("refused by the configuration")
    check(tmp_path, 3, name, (optimizer, "cosine"), KILLED_AT[when], data_parallel=way)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_moves_from_one_rank_to_shards_and_back(tmp_path, optimizer):
    kinds = (optimizer, "cosine")
    (reference,) = uninterrupted(1, "mix", kinds, ())
    moving = {"allow_layout_change": True}
    with pytest.raises(EOFError):
        run_ranks(trained, 1, str(tmp_path), "mix", kinds, moving, 4)
    with pytest.raises(EOFError):
        run_ranks(trained, 2, str(tmp_path), "mix", kinds, moving | {"data_parallel": "fsdp"}, 7)
    assert [path.name[:13] for path in sorted((tmp_path / "checkpoints").glob("step-*"))] == [
        "step-00000003",
        "step-00000006",
    ]
    (moved,) = run_ranks(trained, 1, str(tmp_path), "mix", kinds, moving, None)
    assert moved.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-3, atol=1e-5, msg=name)
