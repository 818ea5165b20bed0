"""Every training that a configuration can describe goes on bit for bit after SIGKILL: optimisers, schedules, precisions, ways to share
the work, orders of the windows and stages, as the configuration's own unions list them."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ranked import run_ranks
from tiny import LATENT_DIM, PROBLEM, TOKENS, problem_windows, waves
from torch import Tensor, nn
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution, Loading
from ups.config.training import OPTIMIZERS, SCHEDULES, Training
from ups.data.batch import Batch
from ups.data.windows import WindowSource
from ups.runtime.ranks import Ranks
from ups.training.loop import Errors, Validation, train
from ups.training.step import TrainingState

STEPS, CHECKPOINT_EVERY = 8, 3
KILLED_AT = {"between checkpoints": 5, "at a checkpoint": 6, "at the last step": STEPS - 1}
BATCH = 12  # equal shares of three ranks, in two parts
WAYS = get_args(Execution.model_fields["data_parallel"].annotation)
PRECISIONS = sorted({*get_args(Execution.model_fields["precision"].annotation)} - {"tf32"})  # of GPUs alone
ORDERS = get_args(Loading.model_fields["order"].annotation)


@dataclass(frozen=True)
class Cell:
    """A training of the matrix.

    Attributes:
        world: ranks.
        optimizer, schedule: kinds, with their defaults.
        order: of windows that batches are drawn from; None: batches are functions of the step, for every training there is.
        execution: keys with their values.
    """

    world: int = 1
    name: str = "mix"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    accumulation: int = 1
    order: str | None = None
    execution: tuple[tuple[str, Any], ...] = ()


class Source:
    """Batches of which each rank has its share; ends the process at one of them, once the checkpoint before is on disk."""

    def __init__(self, cell: Cell, ranks: Ranks, work: Path, die_at: int | None) -> None:
        self.name, self.ranks, self.work, self.die_at = cell.name, ranks, work, die_at
        self.windows = None if cell.order is None else windows(ranks, cell.order)

    def batch(self, step: int) -> Batch:
        if step == self.die_at and self.ranks.rank == self.ranks.world - 1:
            written = (step - 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
            while written and not list((self.work / "checkpoints").glob(f"step-{written:08d}-*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.windows is not None:
            return self.windows.batch(step)
        batch = replace(batch_for(self.name, count=BATCH, seed=step), step=step)
        return batch.each(lambda value: value[self.ranks.rank :: self.ranks.world])

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


def windows(ranks: Ranks, order: str) -> WindowSource:
    """Of 24 windows: an epoch is two batches."""
    latents = torch.randn(6, 6, TOKENS, LATENT_DIM, generator=torch.Generator().manual_seed(0))
    return WindowSource(
        {PROBLEM: problem_windows(length=3, fields=waves(6, 6), latents=latents)},
        seed=3,
        purpose="operator",
        batch_size=BATCH,
        order=order,
        device=ranks.device,
        rank=ranks.rank,
        world=ranks.world,
    )


def of_weights(model: nn.Module) -> Errors:
    return {"all": torch.stack([weight.square().mean() for weight in model.parameters()]).mean()[None]}


def trained(ranks: Ranks, cell: Cell, work: str, die_at: int | None) -> dict[str, Tensor]:
    """All that a training has at its end and this rank holds."""
    settings = Training.model_validate(
        {
            "batch_size": BATCH,
            "accumulation": cell.accumulation,
            "steps": STEPS,
            "optimizer": {"kind": cell.optimizer},
            "schedule": {"kind": cell.schedule},
            "warmup_steps": 2,
            "weight_decay": 1e-2,
            "ema_decay": 0.9,
            "checkpoint_every": CHECKPOINT_EVERY,
            "log_every": 2,
            "validate_every": 4,
        }
    )
    model, objective = training(cell.name)
    state = train(
        model,
        objective,
        Source(cell, ranks, Path(work), die_at),
        Validation("weights", of_weights),
        settings,
        ranks,
        Path(work),
        stage="operator",
        seed=1,
        execution=Execution.model_validate({"processes": ranks.world, "threads": 1} | dict(cell.execution)),
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
def uninterrupted(cell: Cell) -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory() as work:
        return run_ranks(trained, cell.world, cell, work, None)


def same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def check(cell: Cell, work: Path, die_at: int = KILLED_AT["between checkpoints"]) -> None:
    """Killed in a directory and begun again there, a training ends as one that was left alone."""
    with pytest.raises(EOFError):
        run_ranks(trained, cell.world, cell, str(work), die_at)
    assert list((work / "checkpoints").glob("step-*"))
    same(run_ranks(trained, cell.world, cell, str(work), None), uninterrupted(cell))


def matrix(*unions: Iterable[Any], possible: Callable[..., bool] = lambda *members: True) -> list[Any]:
    """Possible members of a product of unions: long tests, but a few in which every member of every union is."""
    cells = [members for members in product(*unions) if possible(*members)]
    missing, few = {each for members in cells for each in enumerate(members)}, set()
    while missing:
        most = max(cells, key=lambda members: len(missing.intersection(enumerate(members))))
        few.add(most)
        missing.difference_update(enumerate(most))
    return [pytest.param(*members, marks=() if members in few else pytest.mark.long) for members in cells]


def shares_out(name: str, optimizer: str, way: str) -> bool:
    """Whether the configuration allows it."""
    return way != "fsdp" or not (name == "joint" or OPTIMIZERS[optimizer].no_shards)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer", "schedule", "precision"), matrix(TRAININGS, OPTIMIZERS, SCHEDULES, PRECISIONS)
)
def test_a_killed_process_goes_on_bit_for_bit(tmp_path, name, optimizer, schedule, precision):
    check(Cell(1, name, optimizer, schedule, execution=(("precision", precision),)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer", "way", "when"),
    matrix(
        TRAININGS,
        OPTIMIZERS,
        WAYS,
        KILLED_AT,
        possible=lambda name, optimizer, way, when: shares_out(name, optimizer, way),
    ),
)
def test_three_ranks_of_which_one_was_killed_go_on_bit_for_bit(tmp_path, name, optimizer, way, when):
    """Three: of two numbers the order of a sum does not matter."""
    check(Cell(3, name, optimizer, execution=(("data_parallel", way),)), tmp_path, KILLED_AT[when])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "schedule", "precision", "way", "accumulation"),
    matrix(
        OPTIMIZERS,
        SCHEDULES,
        PRECISIONS,
        WAYS,
        [1, 2],
        possible=lambda optimizer, schedule, precision, way, accumulation: shares_out("mix", optimizer, way),
    ),
)
def test_three_ranks_go_on_with_any_schedule_precision_and_parts(
    tmp_path, optimizer, schedule, precision, way, accumulation
):
    execution = (("data_parallel", way), ("precision", precision))
    check(Cell(3, "mix", optimizer, schedule, accumulation, execution=execution), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "when"), matrix(ORDERS, KILLED_AT))
def test_windows_in_any_order_go_on_where_they_were(tmp_path, order, when):
    """Killed in the middle of an epoch, or at its end: at a checkpoint."""
    check(Cell(3, "operator", order=order), tmp_path, KILLED_AT[when])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("world", "execution"),
    [
        (1, {"compile": "blocks"}),
        pytest.param(1, {"compile": True, "activation_checkpointing": 1}, marks=pytest.mark.long),
        pytest.param(3, {"compile": True, "data_parallel": "ddp"}, marks=pytest.mark.long),
        pytest.param(3, {"compile": "blocks", "data_parallel": "fsdp"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_compiled_training_goes_on_bit_for_bit(tmp_path, monkeypatch, world, execution):
    """Compiled again by the process that goes on, or found in the cache."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    check(Cell(world, "operator", execution=tuple(execution.items())), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [kind for kind in OPTIMIZERS if shares_out("mix", kind, "fsdp")])
def test_a_training_moves_from_one_rank_to_shards_and_back(tmp_path, optimizer):
    alone = Cell(1, "mix", optimizer, execution=(("allow_layout_change", True),))
    shards = replace(alone, world=2, execution=(*alone.execution, ("data_parallel", "fsdp")))
    for cell, die_at in ((alone, 4), (shards, 7)):
        with pytest.raises(EOFError):
            run_ranks(trained, cell.world, cell, str(tmp_path), die_at)
    assert [path.name[:13] for path in sorted((tmp_path / "checkpoints").glob("step-*"))] == [
        "step-00000003",
        "step-00000006",
    ]
    (moved,) = run_ranks(trained, 1, alone, str(tmp_path), None)
    (reference,) = uninterrupted(alone)
    assert moved.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-3, atol=1e-5, msg=name)
