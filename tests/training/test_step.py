"""One optimiser step: the same for any number of ranks, in any precision, compiled or not, or none at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranked import run_ranks
from tiny import (
    LINE,
    PROBLEM,
    SQUARE,
    build,
    evolutions,
    fresh,
    optimizer_of,
    problem_windows,
    random_batch,
    single_rank,
    state_of,
)
from torch import Tensor, nn
from trainings import batch_for, training

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.data.windows import WindowSource
from ups.errors import NotFiniteError
from ups.models.codec import Codec
from ups.models.embedding import module_key
from ups.runtime.precision import AUTOCAST
from ups.runtime.ranks import Ranks
from ups.training.loss_scale import LossScale
from ups.training.objectives import Loss, Objective
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.objectives.operator import RolloutLoss
from ups.training.parallel import parallelise
from ups.training.step import TrainingState, Update, training_step

UNLIMITED = 1e9


class NoObjective(Objective):
    """Of a state that is told its objective with each step."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        raise NotImplementedError


def gradient_descent(model: nn.Module) -> TrainingState:
    """With rate 1 a step changes the weights by the gradient, so that it can be seen."""
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "rate": 1.0}], lr=torch.tensor(1.0))
    return state_of(model, NoObjective(), optimizer)


def step(state: TrainingState, objective, batch: Batch, ranks: Ranks | None = None, **options) -> dict:
    settings = {"learning_rate": 1.0, "gradient_clip": UNLIMITED} | options
    rate = settings.pop("learning_rate")
    state.replica = parallelise(state.replica.model, objective, Execution(), ranks or single_rank())
    update = Update(state, torch.Generator().manual_seed(0), **settings)
    return training_step(state, batch, update, learning_rate=rate)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


SHAPES = {PROBLEM: LINE, "square": SQUARE}


def forecast_step(ranks: Ranks, problem: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and record after one step on this rank's share of a batch of twelve."""
    shape, frames = SHAPES[problem], 9 if problem == PROBLEM else 2
    generator = torch.Generator().manual_seed(0)
    windows = problem_windows(
        length=min(3, frames),
        fields=torch.randn(5, frames, *shape.grid, shape.channels, generator=generator),
        latents=torch.randn(5, frames, shape.token_grid.token_count, 4, generator=generator),
        scalars=[-3.0] * shape.scalars,
    )
    source = WindowSource(
        {problem: windows},
        seed=3,
        purpose="operator",
        batch_size=12,
        device=ranks.device,
        rank=ranks.rank,
        world=ranks.world,
    )
    codec = build("codec", shapes=SHAPES).requires_grad_(False)
    assert isinstance(codec, Codec)
    model = build("operator", shapes=SHAPES)
    objective = RolloutLoss(codec, evolutions(SHAPES), rollout_steps=2)
    logged = step(gradient_descent(model), objective, source.batch(4), ranks)
    return snapshot(model), logged


@pytest.mark.parametrize(("world", "problem"), [(2, PROBLEM), (3, PROBLEM), (2, "square")])
def test_ranks_take_the_step_of_a_single_process_on_the_whole_batch(world, problem):
    weights, logged = forecast_step(single_rank(), problem)
    results = run_ranks(forecast_step, world, problem)
    for shared, reported in results:
        torch.testing.assert_close(reported, logged, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(shared, weights, rtol=1e-5, atol=1e-6)
    first = results[0][0]
    assert all(torch.equal(first[name], other[name]) for other, _ in results for name in first)
    initial = build("operator", shapes=SHAPES).state_dict()
    moved = max(
        (weights[n] - value).abs().max().item()
        for n, value in initial.items()
        if value.numel() and value.is_floating_point()
    )
    assert moved > 1e-2, "the comparison means nothing if the gradient is as small as its tolerance"
    (other,) = SHAPES.keys() - {problem}
    others = (f".{module_key(other)}.", f".scalars.{SHAPES[other].equation}.")
    untouched = [name for name in initial if any(part in name for part in others)]
    assert untouched
    assert all(torch.equal(weights[name], initial[name]) for name in untouched), "a batch holds one problem"


def test_a_batch_in_parts_takes_the_step_of_the_whole():
    """Of an objective without noise, which is drawn for each part anew."""
    found = []
    for parts in (1, 2, 4):
        model, objective = training("operator")
        state = gradient_descent(model)
        logged = step(state, objective, batch_for("operator"), accumulation=parts)
        found.append((logged, snapshot(model)))
    (whole, weights), *others = found
    for logged, other in others:
        torch.testing.assert_close(logged, whole, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(other, weights, rtol=1e-4, atol=1e-5)


class SquareSum(Objective):
    """A loss that is finite."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        return Loss(next(model.parameters()).square().sum())


class Broken(Objective):
    """An objective whose loss or gradient is not finite."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        total = next(model.parameters()).sum()
        if self.kind == "loss":
            return Loss(total * torch.nan)
        return Loss((total * 0).sqrt())  # 0, with the gradient 0 * infinity


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_the_first_step_that_is_not_finite_is_told_whenever_it_is_asked_for(kind):
    model = build("operator")
    optimizer = optimizer_of(model, kind="adamw", learning_rate=0.1, betas=(0.9, 0.95), weight_decay=0.1)
    state = state_of(model, NoObjective(), optimizer, step=1000)
    state.finiteness.check(state.step)  # a resumed training
    good = SquareSum()
    for _ in range(5):
        step(state, good, random_batch(2))
    state.finiteness.check(state.step)
    for objective in (good, good, Broken(kind), good):
        step(state, objective, random_batch(2))
    value = "loss nan, gradient norm nan" if kind == "loss" else "loss 0.0, gradient norm nan"
    with pytest.raises(NotFiniteError, match=f"step 1007: {value}"):
        state.finiteness.check(state.step)


class Slope(Objective):
    """A loss with the gradient (3, 4), of norm 5."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        weight = next(model.parameters())
        return Loss((weight * torch.tensor([[3.0, 4.0]])).sum())


@pytest.mark.parametrize(("clip", "moved"), [(1.0, [0.6, 0.8]), (5.1, [3.0, 4.0]), (UNLIMITED, [3.0, 4.0])])
def test_the_gradient_is_clipped_by_its_global_norm_and_the_record_has_the_norm_before(clip, moved):
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    logged = step(gradient_descent(model), Slope(), random_batch(1), gradient_clip=clip)
    torch.testing.assert_close(model.weight.detach(), -torch.tensor([moved]), rtol=1e-5, atol=0)
    assert logged["gradient_norm"].item() == pytest.approx(5.0)


def test_steps_whose_gradient_was_clipped_are_counted():
    state = gradient_descent(nn.Linear(2, 1, bias=False))
    for clip in (4.0, 10.0, 0.5):  # the slope's norm is 5
        step(state, Slope(), random_batch(1), gradient_clip=clip)
    assert state.clipped.item() == 2


@pytest.mark.parametrize("share", [1.0, 20.0])
def test_the_learning_rate_of_the_step_is_the_one_that_is_used(share):
    """Times the share of a group: two schedules that differ by a factor."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    state = gradient_descent(model)
    state.optimizer.param_groups[0]["rate"] = share
    step(state, Slope(), random_batch(1), learning_rate=0.1)
    torch.testing.assert_close(model.weight.detach(), -share * torch.tensor([[0.3, 0.4]]))


@pytest.mark.parametrize("dtype", AUTOCAST.values())
@pytest.mark.parametrize("kind", ["operator", "diffusion"])
def test_fewer_bits_compute_otherwise_and_learn_the_same(kind, dtype):
    traces = {}
    for autocast in (None, dtype):
        model = fresh(kind)
        codec = build("codec").requires_grad_(False)
        assert isinstance(codec, Codec)
        objective = {
            "operator": RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=2),
            "diffusion": ResidualDenoising(centre=1.0, std_log_sigma=1.2),
        }[kind]
        optimizer = optimizer_of(model, kind="adamw", learning_rate=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
        state = state_of(model, objective, optimizer)
        state.loss_scale = LossScale(torch.device("cpu")) if autocast == torch.float16 else None
        traces[autocast] = torch.stack(
            [
                step(state, objective, random_batch(8), learning_rate=1e-2, autocast=autocast)["loss"]
                for _ in range(20)
            ]
        )
        assert all(value.dtype == torch.float32 for value in model.parameters())
    assert traces[None][-1] < 0.97 * traces[None][0]
    assert not torch.equal(traces[None], traces[dtype])
    torch.testing.assert_close(traces[dtype], traces[None], rtol=2e-2, atol=0)


COMPILED = """
import torch
from test_step import gradient_descent, snapshot, step
from trainings import batch_for, training
from ups.config.schema import Execution
from ups.training.prepare import prepare

torch.set_num_threads(1)
weights = []
for settings in ({}, *COMPILATIONS):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    model, objective = training(NAME)
    prepare(model, Execution(**settings))
    state = gradient_descent(model)
    for number in range(3):
        step(state, objective, batch_for(NAME, seed=number), learning_rate=1e-2)
    weights.append(snapshot(model))
    assert not settings or sum(torch._dynamo.utils.counters["aot_autograd"].values()) > 0
for other in weights[1:]:
    for name, value in weights[0].items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5)
"""


WHOLE = {"compile": True}
IN_PARTS = {"compile": True, "activation_checkpointing": 2}
BLOCKS = {"compile": "blocks", "activation_checkpointing": "products"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compilations"),
    [
        ("operator", [IN_PARTS, BLOCKS]),
        pytest.param("operator", [WHOLE], marks=pytest.mark.long),
        pytest.param("diffusion", [WHOLE, IN_PARTS, BLOCKS], marks=pytest.mark.long),
        pytest.param("windows", [WHOLE, IN_PARTS, BLOCKS], marks=pytest.mark.long),
    ],
)
def test_a_compiled_network_takes_the_same_steps(name, compilations, tmp_path):
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), str(here.parents[1])]),
    }
    ended = subprocess.run(
        [sys.executable, "-c", f"NAME, COMPILATIONS = {name!r}, {compilations!r}\n{COMPILED}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
