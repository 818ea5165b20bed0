"""float16: what a scale does to gradients, and that a step which overflows is as if it had never been."""

import math
from typing import Any

import pytest
import torch
from ranked import run_ranks
from tiny import build, optimizer_of, random_batch, single_rank, state_of
from torch import Tensor, nn
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.config.training import OPTIMIZERS
from ups.data.batch import Batch
from ups.errors import NotFiniteError
from ups.runtime.ranks import Ranks
from ups.training import loss_scale
from ups.training.ema import ExponentialMovingAverage
from ups.training.loss_scale import LossScale
from ups.training.objectives import Loss, Objective
from ups.training.optimizers import build_optimizer
from ups.training.parallel import parallelise
from ups.training.slots import inner_tensors
from ups.training.step import TrainingState, Update, training_step

RATES: dict[str, Any] = {"learning_rate": 1e-3, "betas": (0.9, 0.95), "weight_decay": 1e-2}


class Times(Objective):
    """The square of a step's prediction in float16, times a number; 0: the loss is 0, and its gradient none in any scale."""

    def __init__(self) -> None:
        self.factor = 1.0

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        square = predicted(model, batch).half().float().square().sum()
        return Loss(self.factor * square if self.factor else (0 * square).sqrt())


def predicted(model: nn.Module, batch: Batch) -> Tensor:
    assert batch.latents is not None
    return model(batch.latents[:, 0], batch.scalars, batch.problem)


FITS, TOO_LARGE, NEVER = 1e-3, 1e3, 0.0


def of_kind(kind: str) -> dict[str, Any]:
    settings = OPTIMIZERS[kind].model_validate({"kind": kind})
    return settings.model_dump() | RATES


def started(optimizer: str = "adamw", *, ranks: Ranks | None = None, **execution: Any) -> TrainingState:
    """A training of all weights of an operator, with a scaled loss."""
    ranks = ranks or single_rank()
    replica = parallelise(
        build("operator"), Times(), Execution.model_validate({"processes": ranks.world} | execution), ranks
    )
    chosen = build_optimizer(replica.parameters, replica, **of_kind(optimizer))
    average = ExponentialMovingAverage(replica.parameters, 0.9)
    source: Any = None
    return TrainingState(replica, chosen, average, source, loss_scale=LossScale(ranks.device))


def steps(state: TrainingState, *factors: float) -> list[dict[str, Tensor]]:
    update = Update(state, torch.Generator(), gradient_clip=1.0)
    logged = []
    for factor in factors:
        assert isinstance(state.replica.objective, Times)
        state.replica.objective.factor = factor
        logged.append(training_step(state, random_batch(2), update, learning_rate=1e-2))
    return logged


def of(state: TrainingState, *, averages: bool = True) -> dict[str, Tensor]:
    """All that a step changes, but its scale."""
    found = {name: value.detach() for name, value in state.replica.parameters.items()}
    if averages:
        found |= {f"average {name}": value for name, value in state.ema.weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            found |= {f"{index} {slot}{part}": inner for part, inner in inner_tensors(value).items()}
    return {name: value.clone() for name, value in found.items()}


def scale_of(state: TrainingState) -> float:
    assert state.loss_scale is not None
    return state.loss_scale.state["scale"].item()


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", TRAININGS)
def test_in_float32_scaled_gradients_are_the_gradients(name):
    found = []
    for scaled in (False, True):
        model, objective = training(name)
        state = state_of(model, objective, optimizer_of(model, **of_kind("muon")))
        state.loss_scale = LossScale(torch.device("cpu")) if scaled else None
        update = Update(state, torch.Generator(), gradient_clip=0.1)
        for number in range(3):
            update.generator.manual_seed(number)
            training_step(state, batch_for(name, seed=number), update, learning_rate=1e-3)
        found.append(of(state))
    assert equal(*found)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_overflows_changes_nothing_and_halves_the_scale(optimizer):
    state = started(optimizer)
    steps(state, FITS, FITS)
    before = of(state)
    (logged,) = steps(state, TOO_LARGE)
    assert not logged["gradient_norm"].isfinite()
    assert logged["loss"].isfinite()
    assert equal(of(state), before)
    assert scale_of(state) == 2.0**15
    state.finiteness.check(state.step)
    steps(state, FITS)
    assert not equal(of(state), before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_as_if_it_had_never_been_even_as_the_first(optimizer):
    """But for the average, whose decay follows the number of the step."""
    plain, interrupted = started(optimizer), started(optimizer)
    steps(plain, FITS, FITS, FITS)
    steps(interrupted, TOO_LARGE, TOO_LARGE, FITS, FITS, TOO_LARGE, FITS)
    assert equal(of(plain, averages=False), of(interrupted, averages=False))
    assert scale_of(interrupted) == 2.0**13


def test_the_scale_falls_until_gradients_fit():
    state = started()
    largest = predicted(state.replica.model, random_batch(2)).abs().max().item()
    steps(state, *[TOO_LARGE] * 16)
    # What rounds to infinity in float16; scales halve, and the last step changes the prediction a little.
    assert 2 * TOO_LARGE * largest * scale_of(state) < 65520 < 4 * TOO_LARGE * largest * scale_of(state)


def test_the_scale_grows_after_steps_that_were_finite_one_after_the_other(monkeypatch):
    monkeypatch.setattr(loss_scale, "_GROW_AFTER", 3)
    state, scales = started(), []
    for factor in (FITS, FITS, TOO_LARGE, FITS, FITS, FITS, FITS, FITS, FITS):
        steps(state, factor)
        scales.append(math.log2(scale_of(state)))
    assert scales == [16, 16, 15, 15, 15, 16, 16, 16, 17]


def test_it_stays_between_its_bounds(monkeypatch):
    monkeypatch.setattr(loss_scale, "_GROW_AFTER", 1)
    state = started()
    steps(state, *[1e-6] * 10)
    assert scale_of(state) == 2.0**24
    steps(state, *[NEVER] * 26)
    assert scale_of(state) == 1.0


def test_what_no_scale_helps_ends_the_training():
    state = started()
    before = of(state)
    steps(state, *[NEVER] * 16)  # down to a scale of 1
    state.finiteness.check(state.step)
    steps(state, FITS, NEVER)
    with pytest.raises(NotFiniteError, match=r"step 17: loss 0\.0, gradient norm nan"):
        state.finiteness.check(state.step)
    assert scale_of(state) == 1.0
    assert not equal(of(state), before)


def test_a_loss_that_is_not_finite_ends_the_training_at_once():
    state = started()
    steps(state, FITS, math.nan, FITS)
    with pytest.raises(NotFiniteError, match="step 1: loss nan, gradient norm nan"):
        state.finiteness.check(state.step)


def one_rank_overflows(ranks: Ranks, way: str) -> list[bool]:
    """Of a good step, one that overflows on the last rank, and a good one: whether weights and averages changed; then the scale."""
    state = started(ranks=ranks, data_parallel=way)
    found, last = [], ranks.rank == ranks.world - 1
    for factor in (FITS, TOO_LARGE if last else FITS, FITS):
        before = of(state)
        steps(state, factor)
        found.append(not equal(of(state), before))
    state.finiteness.check(state.step)
    return [*found, scale_of(state) == 2.0**15]


@pytest.mark.parametrize(
    "way", ["ddp", *(pytest.param(way, marks=pytest.mark.slow) for way in ("all_reduce", "fsdp"))]
)
def test_ranks_leave_the_same_steps_out(way):
    assert run_ranks(one_rank_overflows, 2, way) == 2 * [[True, False, True, True]]


def broken_rank(ranks: Ranks, factors: list[float]) -> str:
    state = started(ranks=ranks)
    state.loss_scale = None
    steps(state, factors[ranks.rank])
    try:
        state.finiteness.check(state.step)
    except NotFiniteError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("factors", "where"),
    [
        ([FITS, math.nan, math.nan], "rank 1, 2 of 3"),
        ([3e38, -3e38, FITS], "rank 0, 1 of 3"),
        ([NEVER, NEVER, FITS], "no rank of 3"),
    ],
)
def test_every_rank_says_on_which_ranks_the_loss_was_not_finite(factors, where):
    messages = run_ranks(broken_rank, 3, factors)
    assert len(set(messages)) == 1
    assert f"; the loss of {where} is not finite by itself" in messages[0]
