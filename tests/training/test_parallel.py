"""However ranks share a training, it takes the steps of one rank that has the whole batch."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from ranked import run_ranks
from tiny import optimizer_of, single_rank, state_of
from torch import Tensor, nn
from trainings import TRAININGS, batch_for, training

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.runtime.ranks import Ranks
from ups.training.ema import ExponentialMovingAverage
from ups.training.objectives import Loss, Objective
from ups.training.optimizers import build_optimizer
from ups.training.parallel import parallelise
from ups.training.step import TrainingState, Update, training_step

OPTIMIZERS = {
    "adamw": {"kind": "adamw"},
    "muon": {"kind": "muon", "matrix_learning_rate": 0.02, "momentum": 0.9},
}
RATES = {"learning_rate": 1e-3, "betas": (0.9, 0.95), "weight_decay": 1e-2}
STEPS = 4


def start(name: str, how: str, optimizer: str, ranks: Ranks) -> TrainingState:
    model, objective = training(name)
    execution = Execution(data_parallel=how, processes=ranks.world)
    replica = parallelise(model, objective, execution, ranks)
    chosen = build_optimizer(replica.parameters, replica, **RATES, **OPTIMIZERS[optimizer])
    average = ExponentialMovingAverage(replica.parameters, 0.9)
    return TrainingState(replica, chosen, average, source=None)  # pyright: ignore[reportArgumentType]


def trained(
    ranks: Ranks, name: str, how: str, optimizer: str, accumulation: int
) -> tuple[dict[str, Tensor], list[dict[str, float]], int]:
    """Whole weights and averages after some steps, what was logged, and how many weights are here."""
    state = start(name, how, optimizer, ranks)
    replica = state.replica
    update = Update(state, torch.Generator(), gradient_clip=1.0, accumulation=accumulation)
    logged = []
    for step in range(STEPS):
        batch = replace(batch_for(name, seed=step), step=step)
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


CASES = [
    pytest.param(name, optimizer, accumulation, marks=() if name in {"mix", "operator"} else pytest.mark.slow)
    for name, optimizer, accumulation in product(TRAININGS, OPTIMIZERS, [1, 2])
]


@pytest.mark.parametrize(("name", "optimizer", "accumulation"), CASES)
def test_overlapping_changes_no_bit_between_two_ranks(name, optimizer, accumulation):
    plain, overlapped = (
        run_ranks(trained, 2, name, how, optimizer, accumulation)[0] for how in ("all_reduce", "ddp")
    )
    assert all(torch.equal(value, overlapped[0][key]) for key, value in plain[0].items())
    assert plain[1] == overlapped[1]


@pytest.mark.parametrize(
    ("name", "optimizer", "accumulation"), [case for case in CASES if case.values[0] != "joint"]
)
def test_shards_take_the_steps_of_replicas(name, optimizer, accumulation):
    plain = run_ranks(trained, 2, name, "all_reduce", optimizer, accumulation)
    sharded = run_ranks(trained, 2, name, "fsdp", optimizer, accumulation)
    for rank in range(2):
        close(sharded[rank][0], plain[0][0], 1e-5)
        assert sharded[rank][1] == [pytest.approx(terms, rel=1e-5) for terms in plain[0][1]]
    whole = plain[0][2]
    assert sum(result[2] for result in sharded) == whole, "each weight is held once"
    assert max(result[2] for result in sharded) < 0.6 * whole


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("how", ["all_reduce", "ddp", "fsdp"])
def test_a_batch_over_two_or_three_ranks_is_the_batch_on_one(how, optimizer):
    """A batch of 8 is not the same over 3 ranks: their shares count alike. So two, and two with two parts each."""
    alone = trained(single_rank(), "mix", "all_reduce", optimizer, 1)
    for accumulation in (1, 2):
        together = run_ranks(trained, 2, "mix", how, optimizer, accumulation)[1]
        close(together[0], alone[0], 1e-4)
        assert together[1] == [pytest.approx(terms, rel=1e-4) for terms in alone[1]]


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
