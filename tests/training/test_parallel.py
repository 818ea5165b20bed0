"""However ranks share a training, it takes the steps of one rank that has the whole batch."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any, get_args

import pytest
import torch
from ranked import run_ranks
from tiny import LINE, PROBLEM, build, evolutions, optimizer_of, single_rank, state_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.models.codec import Codec
from ups.runtime.precision import AUTOCAST
from ups.runtime.ranks import Ranks
from ups.training.ema import ExponentialMovingAverage
from ups.training.objectives import Loss, Objective
from ups.training.objectives.operator import RolloutLoss
from ups.training.optimizers import build_optimizer
from ups.training.parallel import parallelise
from ups.training.step import TrainingState, Update, training_step

OPTIMIZERS = {
    "adamw": {"kind": "adamw"},
    "muon": {"kind": "muon", "matrix_learning_rate": 0.02, "momentum": 0.9},
}
RATES = {"learning_rate": 1e-3, "betas": (0.9, 0.95), "weight_decay": 1e-2}
STEPS = 4
WAYS = get_args(Execution.model_fields["data_parallel"].annotation)


def wide() -> tuple[nn.Module, Objective]:
    """An operator of 2 MiB, of which DDP makes two buckets, and the compiler of a whole network in DDP a graph for each."""
    body = {"kind": "transformer", "width": 192, "depth": 2, "heads": 2, "ratio": 2}
    shapes = {PROBLEM: LINE}
    codec = build("codec", shapes=shapes).requires_grad_(False)
    assert isinstance(codec, Codec)
    objective = RolloutLoss(codec, evolutions(shapes), rollout_steps=2)
    return build("operator", scale=0.02, shapes=shapes, network=body), objective


def start(
    name: str,
    optimizer: str,
    ranks: Ranks,
    execution: dict[str, Any],
    accumulation: int,
    seen: Callable[[Objective], Objective] = lambda objective: objective,
) -> tuple[TrainingState, Update]:
    """seen: what the objective is asked through."""
    model, objective = wide() if name == "wide" else training(name)
    chosen = Execution.model_validate({"processes": ranks.world} | execution)
    replica = parallelise(model, seen(objective), chosen, ranks)
    moved_by = build_optimizer(replica.parameters, replica, **RATES, **OPTIMIZERS[optimizer])
    average = ExponentialMovingAverage(replica.parameters, 0.9)
    state = TrainingState(replica, moved_by, average, source=None)  # pyright: ignore[reportArgumentType]
    return state, Update(
        state,
        torch.Generator(),
        gradient_clip=1.0,
        autocast=AUTOCAST.get(chosen.precision),
        accumulation=accumulation,
    )


def trained(
    ranks: Ranks, name: str, optimizer: str, accumulation: int, execution: dict[str, Any], samples: int = 8
) -> tuple[dict[str, Tensor], list[dict[str, float]], int]:
    """Whole weights and averages after some steps, what was logged, and how many weights are here."""
    state, update = start(name, optimizer, ranks, execution, accumulation)
    replica = state.replica
    logged = []
    for step in range(STEPS):
        batch = replace(batch_for(name, count=samples, seed=step), step=step)
        update.generator.manual_seed(step)
        share = batch.each(lambda value: value[ranks.rank :: ranks.world])
        logged.append(training_step(state, share, update, learning_rate=1e-3))
    state.finiteness.check(state.step)
    own = {f"own {key}": value.clone() for key, value in replica.whole_tensors()}
    with replica.averaged(state.ema.weights):
        averaged = {f"average {key}": value.clone() for key, value in replica.model.state_dict().items()}
    held = sum(part.numel() for part in replica.parameters.values())
    return own | averaged, [{key: value.item() for key, value in terms.items()} for terms in logged], held


def close(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=tolerance, atol=tolerance, msg=name)


PARTS = (1, 2)
CORNERS = {
    "autoencoder": ("adamw", 2),
    "operator": ("adamw", 1),
    "augmented": ("muon", 1),
    "square": ("muon", 2),
    "windows": ("adamw", 1),
    "mix": ("muon", 2),
    "joint": ("adamw", 2),
    "diffusion": ("muon", 1),
    "consistency": ("adamw", 2),
}
"""Each training once, and each pair of an optimiser and a number of parts."""
FAST = {"operator", "mix"}


def effort(name: str, *others: str | int) -> list[pytest.MarkDecorator]:
    """The rest of the product is for `make test-all`."""
    marks = [] if name in FAST and others == CORNERS[name] else [pytest.mark.slow]
    return marks if others == CORNERS[name] else [*marks, pytest.mark.long]


CASES = [pytest.param(*case, marks=effort(*case)) for case in product(TRAININGS, OPTIMIZERS, PARTS)]


@cache
def replicas(name: str, optimizer: str, accumulation: int) -> list[Any]:
    """What others are held against."""
    return run_ranks(trained, 2, name, optimizer, accumulation, {"data_parallel": "all_reduce"})


@pytest.mark.parametrize(("name", "optimizer", "accumulation"), CASES)
def test_overlapping_changes_no_bit_between_two_ranks(name, optimizer, accumulation):
    plain = replicas(name, optimizer, accumulation)[0]
    overlapped = run_ranks(trained, 2, name, optimizer, accumulation, {"data_parallel": "ddp"})[0]
    assert all(torch.equal(value, overlapped[0][key]) for key, value in plain[0].items())
    assert plain[1] == overlapped[1]


@pytest.mark.parametrize(
    ("name", "optimizer", "accumulation"), [case for case in CASES if case.values[0] != "joint"]
)
def test_shards_take_the_steps_of_replicas(name, optimizer, accumulation):
    plain = replicas(name, optimizer, accumulation)
    sharded = run_ranks(trained, 2, name, optimizer, accumulation, {"data_parallel": "fsdp"})
    for rank in range(2):
        close(sharded[rank][0], plain[0][0], 1e-5)
        assert sharded[rank][1] == [pytest.approx(terms, rel=1e-5) for terms in plain[0][1]]
    whole = plain[0][2]
    assert sum(result[2] for result in sharded) == whole, "each weight is held once"
    assert max(result[2] for result in sharded) < 0.6 * whole


BF16, CHECKPOINTING = {"precision": "bf16"}, {"activation_checkpointing": 1}
BLOCKS, WHOLE = {"compile": "blocks"}, {"compile": True}


def captured(ranks: Ranks, *arguments: Any) -> tuple[Any, int, int]:
    """As `trained`, with the graphs of the compiler as they are: how many it captured, and in how many parts they run.

    What distinguishes ranks ends there: that generated code takes the same steps is tested in `test_step`.
    """
    torch.compile = partial(
        torch.compile, backend="aot_eager"
    )  # of this process, which ends with the training
    found = trained(ranks, *arguments)
    counters = torch._dynamo.utils.counters
    return found, counters["stats"]["unique_graphs"], counters["aot_autograd"]["total"]


@pytest.mark.parametrize(
    ("way", "others"),
    [
        ("fsdp", CHECKPOINTING),
        pytest.param("ddp", BF16, marks=pytest.mark.slow),
        pytest.param("ddp", CHECKPOINTING, marks=pytest.mark.slow),
        pytest.param("fsdp", BF16, marks=pytest.mark.slow),
        *(
            pytest.param(way, others, marks=(pytest.mark.slow, pytest.mark.long))
            for way, others in [("ddp", BLOCKS), ("ddp", WHOLE), ("fsdp", BLOCKS)]
        ),
        # As configurations of several GPUs have it.
        pytest.param("ddp", BF16 | CHECKPOINTING | WHOLE, marks=pytest.mark.slow),
        pytest.param("ddp", BF16 | CHECKPOINTING | BLOCKS, marks=(pytest.mark.slow, pytest.mark.long)),
        pytest.param("fsdp", BF16 | CHECKPOINTING | BLOCKS, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sharing_goes_together_with_precision_checkpoints_and_compiler(way, others):
    (plain, *_), (shared, graphs, parts) = (
        run_ranks(captured, 2, "wide", "adamw", 2, others | {"data_parallel": each})[0]
        for each in ("all_reduce", way)
    )
    if way == "ddp":
        assert [name for name, value in plain[0].items() if not torch.equal(value, shared[0][name])] == []
        assert plain[1] == shared[1]
    else:
        # Each rank adds up the norm of its own rows, in another order than all at once; and a weight that differs in its last bit
        # may be another one in eight bits.
        tolerance = 1e-3 if "precision" in others else 1e-5
        close(shared[0], plain[0], tolerance)
        assert shared[1][0] == pytest.approx(plain[1][0], rel=1e-6)
        assert shared[1] == [pytest.approx(terms, rel=tolerance) for terms in plain[1]]
    assert (graphs > 0) == ("compile" in others)
    if way == "ddp" and graphs:
        assert parts == 2 * graphs, "a bucket's gradients are there before the whole backward pass is done"


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
@pytest.mark.parametrize(
    "way", ["ddp", *(pytest.param(way, marks=pytest.mark.slow) for way in ("all_reduce", "fsdp"))]
)
def test_a_batch_over_two_or_three_ranks_is_the_batch_on_one(way, optimizer):
    """Of 12 samples, which both numbers of ranks share out equally."""
    alone = trained(single_rank(), "mix", optimizer, 1, {}, 12)
    for world, accumulation in ((2, 1), (2, 2), (3, 2)):
        together = run_ranks(trained, world, "mix", optimizer, accumulation, {"data_parallel": way}, 12)[1]
        close(together[0], alone[0], 1e-4)
        assert together[1] == [pytest.approx(terms, rel=1e-4) for terms in alone[1]]


class Sent(TorchDispatchMode):
    """Bytes of what collectives add up over ranks, by the part of the batch in which they were given it."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given: dict[str, Callable[[], list[Tensor]]] = {
            "c10d::allreduce_": lambda: args[0],
            "c10d::_reduce_scatter_base_": lambda: [args[1]],
        }
        if function.name() in given:
            self.parts[-1] += sum(tensor.nbytes for tensor in given[function.name()]())
        return function(*args, **(kwargs or {}))


class NotingParts(Objective):
    """Asked once for each part of a batch."""

    def __init__(self, objective: Objective, sent: Sent) -> None:
        self.objective, self.sent = objective, sent

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        self.sent.parts.append(0)
        return self.objective(model, batch, generator)


def sent(ranks: Ranks, name: str, way: str) -> tuple[list[list[int]], int]:
    """Bytes of each part of a step that has 1, 2 and 4 of them, and those of the weights."""
    found = []
    for accumulation in (1, 2, 4):
        noted = Sent()
        state, update = start(
            name,
            "adamw",
            ranks,
            {"data_parallel": way},
            accumulation,
            lambda objective, noted=noted: NotingParts(objective, noted),
        )
        with noted:
            training_step(state, batch_for(name), update, learning_rate=1e-3)
        found.append(noted.parts)
    return found, sum(value.nbytes for value in state.replica.model.parameters())


@pytest.mark.parametrize("name", ["diffusion", "operator"])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_sent_once_and_with_the_last_part_of_a_batch(way, name):
    for (whole, *in_parts), weights in run_ranks(sent, 2, name, way):
        assert weights <= whole[0] < 1.1 * weights, "the record's few numbers too"
        for parts in in_parts:
            assert not any(parts[:-1])
            if way == "fsdp" and name == "operator":
                # A block that a rollout uses again sends what it has at each of its uses: here once what the parts before gave.
                assert whole[0] < parts[-1] < 2 * whole[0]
            else:
                assert parts[-1] == whole[0]


class Sum(Objective):
    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        return Loss(next(model.parameters()).sum())


def test_a_model_has_its_own_weights_again_after_a_failed_validation():
    model = nn.Linear(1, 1, bias=False)
    state = state_of(model, Sum(), optimizer_of(model, kind="adamw", **RATES))
    nn.init.constant_(state.ema.weights["weight"], 1.0)
    nn.init.constant_(model.weight, 2.0)
    seen = []

    def fail() -> None:
        with state.replica.averaged(state.ema.weights):
            seen.append(model.weight.item())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [1.0]
    assert model.weight.item() == 2.0
    assert torch.equal(state.ema.weights["weight"], torch.ones(1, 1))
