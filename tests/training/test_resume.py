"""A training that was killed, stopped or damaged ends with the weights of one that was left alone, bit for bit."""

import functools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranked import run_ranks
from safetensors import safe_open
from tiny import (
    LINE,
    PROBLEM,
    SQUARE,
    FixedBatches,
    build,
    evolutions,
    fresh,
    normalisations,
    problem_windows,
    random_batch,
    single_rank,
    waves,
)
from torch import Tensor, nn

from ups.artifacts.files import read_records
from ups.config.optimizers.muon import Muon
from ups.config.schema import Execution
from ups.config.training import Training
from ups.data.batch import Batch
from ups.data.windows import WindowSource
from ups.errors import IntegrityError, Interrupted, NotFiniteError, PreflightError, ProcessKilled
from ups.models.codec import Codec
from ups.pipeline import execute as execute_module
from ups.pipeline.run import Run
from ups.runtime.ranks import Ranks
from ups.training.checkpoint import Checkpoints
from ups.training.loop import Validation, train
from ups.training.matrices import hidden_matrices
from ups.training.objectives import Objective
from ups.training.objectives.autoencoder import Reconstruction, reconstruction_errors
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.objectives.operator import RolloutLoss
from ups.training.step import BatchSource, TrainingState

STEPS = 8
SETTINGS = Training(
    batch_size=8,
    steps=STEPS,
    learning_rate=1e-2,
    final_learning_rate=1e-4,
    warmup_steps=2,
    weight_decay=1e-2,
    betas=(0.9, 0.95),
    gradient_clip=1.0,
    ema_decay=0.99,
    checkpoint_every=3,
    log_every=2,
    validate_every=4,
)
RUN = {"stage": "autoencoder", "seed": 5, "execution": Execution(threads=1)}
HYBRID = {"kind": "hybrid", "width": 16, "dilations": [1, 2], "heads": 2, "ratio": 2}
TIMINGS = {
    "seconds_per_step",
    "validation_seconds",
    "data_wait_fraction",
    "whole_seconds_per_step",
    "whole_data_wait_fraction",
    "gigaflop_per_second",
    "of_best_product",
    "peak_memory_gigabytes",
    "clipped_fraction",  # of this process, as they are
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


MIX = {PROBLEM: LINE, "square": SQUARE}


def random_square(count: int, frames: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, frames, 16, 16, 2, generator=torch.Generator().manual_seed(seed))


def windows_of(kind: str, ranks: Ranks, seed: int) -> BatchSource:
    problems = {PROBLEM: problem_windows(length=1, fields=waves(10, 5))}
    if kind == "mix":
        known = np.array([[True, False], [True, True]])
        problems["square"] = problem_windows(
            length=1, fields=random_square(7, 2), scalars=[-1.0], known=known
        )
    return WindowSource(
        problems,
        seed=seed,
        purpose="autoencoder",
        batch_size=6,
        sampling="difficulty_weighted",
        order="permutation" if kind == "mix" else "independent",
        device=ranks.device,
        rank=ranks.rank,
        world=ranks.world,
    )


class Source:
    """Batches of one stage; notes which steps were asked for, and can die or stop at one of them."""

    def __init__(self, kind: str, ranks: Ranks, seed: int, *, die_at: int = -1, stop_at: int = -1) -> None:
        self.ranks, self.die_at, self.stop_at = ranks, die_at, stop_at
        self.steps: list[int] = []
        self.problems: list[str] = []
        fixed = {"diffusion": FixedBatches(6), "muon": FixedBatches(6)}
        self.source = fixed.get(kind) or windows_of(kind, ranks, seed)

    def batch(self, step: int) -> Batch:
        if step == self.die_at:
            raise Killed
        if step == self.stop_at:
            self.ranks.stop_requested = True
        self.steps.append(step)
        batch = self.source.batch(step)
        self.problems.append(batch.problem)
        return batch

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        self.source.reweigh(step, errors)

    def state(self) -> dict[str, Any]:
        return self.source.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.source.restore(state)


def validation_of(kind: str, ranks: Ranks, objective: Objective) -> Validation:
    """Reconstruction errors of held-out frames of each problem, shared out over ranks."""

    def losses(model: nn.Module) -> dict[str, Tensor]:
        assert not model.training
        generator = torch.Generator().manual_seed(0)
        return {PROBLEM: objective(model, random_batch(4, seed=99), generator).total.expand(4)}

    def errors(model: nn.Module) -> dict[str, Tensor]:
        assert not model.training
        found = {}
        for name, fields in ((PROBLEM, waves(5, 1, seed=9)), ("square", random_square(3, 1, seed=9))):
            share = fields[ranks.rank :: ranks.world, 0]
            if len(share) == 0:
                found[name] = torch.zeros(0)
                continue
            exact = share.flatten(1, -2)
            found[name] = reconstruction_errors(model(share, None, name) - exact, exact, None)
        return found

    return Validation("validation_error", errors if kind == "mix" else losses)


def run_training(
    work: Path,
    ranks: Ranks,
    *,
    kind: str = "autoencoder",
    settings: Training = SETTINGS,
    seed: int = 5,
    threads: int = 1,
    layout_may_change: bool = False,
    **fate: int,
) -> tuple[dict[str, Tensor], Source]:
    """Train in `work`; all tensors of the final state, and the source with the steps that were taken."""
    shapes = MIX if kind == "mix" else {PROBLEM: LINE}
    objective: Objective = Reconstruction(normalisations(shapes))
    match kind:
        case "diffusion":
            model = fresh("diffusion")
            objective = ResidualDenoising(centre=1.0, std_log_sigma=1.2)
        case "muon":
            model, codec = fresh("operator", network=HYBRID, linear_path="trained"), build("codec")
            assert isinstance(codec, Codec)
            # Everything that a step draws or counts: noise, pushed steps, a growing rollout.
            objective = RolloutLoss(
                codec.requires_grad_(False),
                evolutions(shapes),
                rollout_steps=2,
                rollout_start=6,
                pushforward_steps=1,
                state_noise=0.1,
            )
            settings = settings.model_copy(update={"optimizer": Muon(kind="muon", momentum=0.9)})
        case _:
            model = fresh("autoencoder", shapes=shapes)
    source = Source(kind, ranks, seed, **fate)
    validation = validation_of(kind, ranks, objective)
    execution = Execution(threads=threads, allow_layout_change=layout_may_change)
    arguments = RUN | {"execution": execution}
    state = train(model, objective, source, validation, settings, ranks, work, **arguments)
    return everything(state), source


def everything(state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value.clone() for name, value in state.replica.whole_tensors()}
    tensors |= {f"ema/{name}": value.clone() for name, value in state.ema.weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value.clone() for slot, value in slots.items()}
    return tensors


def expect_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def records_without_timings(work: Path) -> list[dict[str, Any]]:
    records = read_records(work / "output" / "logs" / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def checkpoints(work: Path) -> list[Path]:
    return sorted((work / "checkpoints").iterdir())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


@dataclass(frozen=True)
class Uninterrupted:
    """A training that was left alone: its final state, its source at the end, and where it worked."""

    state: dict[str, Tensor]
    source: Source
    work: Path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[..., Uninterrupted]:
    """Of a kind and settings, trained once for all tests."""

    @functools.cache
    def trained(kind: str = "autoencoder", settings: Training = SETTINGS) -> Uninterrupted:
        work = tmp_path_factory.mktemp("uninterrupted")
        return Uninterrupted(*run_training(work, single_rank(), kind=kind, settings=settings), work)

    return trained


def some_slow(steps: Iterable[int], *, but: set[int]) -> list[Any]:
    """Parameters of which all `but` some are slow tests."""
    return [pytest.param(step, marks=() if step in but else pytest.mark.slow) for step in steps]


@pytest.mark.parametrize("step", some_slow(range(STEPS), but={0, 5}))
@pytest.mark.parametrize("kind", ["autoencoder", "diffusion", "mix", "muon"])
def test_killed_at_any_step_it_ends_the_same(tmp_path, uninterrupted, kind, step):
    reference = uninterrupted(kind)
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), kind=kind, die_at=step)
    resumed, source = run_training(tmp_path, single_rank(), kind=kind)
    assert source.steps[0] == step // 3 * 3, "it goes on from the newest checkpoint"
    expect_same(resumed, reference.state)
    assert records_without_timings(tmp_path) == records_without_timings(reference.work)


def test_killed_at_every_step_it_ends_the_same(tmp_path):
    settings = SETTINGS.model_copy(update={"checkpoint_every": 1})
    reference, _ = run_training(tmp_path / "reference", single_rank(), settings=settings)
    for step in range(1, STEPS):
        with pytest.raises(Killed):
            run_training(tmp_path / "killed", single_rank(), settings=settings, die_at=step)
    resumed, source = run_training(tmp_path / "killed", single_rank(), settings=settings)
    assert source.steps == [STEPS - 1]
    expect_same(resumed, reference)


def test_the_momentum_of_every_matrix_is_in_the_checkpoint(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), kind="muon", die_at=4)
    (held,) = checkpoints(tmp_path)
    with safe_open(held, framework="pt") as file:
        slots = [name.rpartition("/")[2] for name in file.keys() if name.startswith("optimizer/")]  # noqa: SIM118
    model = fresh("operator", network=HYBRID, linear_path="trained")
    hidden = len(hidden_matrices(dict(model.named_parameters())))
    # Per block: a kernel, the stack of queries, keys and values, attention's output, two of the MLP, the gates.
    assert hidden == 2 * 6
    assert slots.count("momentum_buffer") == hidden


def test_a_finished_training_is_found_finished(tmp_path):
    reference, _ = run_training(tmp_path, single_rank())
    before = records_without_timings(tmp_path)
    again, source = run_training(tmp_path, single_rank())
    assert source.steps == []
    expect_same(again, reference)
    assert records_without_timings(tmp_path) == before


@pytest.mark.parametrize("step", some_slow(range(STEPS - 1), but={2, 4}))
def test_stopped_at_any_step_it_loses_none(tmp_path, uninterrupted, step):
    with pytest.raises(Interrupted, match=f"at step {step + 1} of {STEPS}"):
        run_training(tmp_path, single_rank(), stop_at=step)
    assert json.loads((tmp_path / "interrupted.json").read_text()) == {"step": step + 1}
    resumed, source = run_training(tmp_path, single_rank())
    assert source.steps == list(range(step + 1, STEPS))
    reference = uninterrupted()
    expect_same(resumed, reference.state)
    assert records_without_timings(tmp_path) == records_without_timings(reference.work)


def found_when_it_leaves(ranks: Ranks, work: str) -> list[str]:
    """Files of a training that was stopped, as a rank finds them that leaves it; the disk is slow."""
    write = Checkpoints._write

    def write_slowly(*arguments: Any) -> None:
        time.sleep(1)
        write(*arguments)

    Checkpoints._write = write_slowly  # in this rank's process alone
    with pytest.raises(Interrupted):
        run_training(Path(work), ranks, stop_at=2)
    return [path.name[:13] for path in (*checkpoints(Path(work)), *Path(work).glob("interrupted.json"))]


def test_no_rank_leaves_before_the_first_has_its_checkpoint_on_disk(tmp_path):
    """The launcher ends all others with the first that leaves."""
    assert run_ranks(found_when_it_leaves, 2, str(tmp_path)) == [["step-00000003", "interrupted.j"]] * 2


def test_asked_to_stop_in_the_last_step_it_ends_well(tmp_path):
    run_training(tmp_path, single_rank(), stop_at=STEPS - 1)
    assert not (tmp_path / "interrupted.json").exists()


@pytest.mark.parametrize("how", ["bit", "half"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, uninterrupted, how, caplog):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=7)
    newest = checkpoints(tmp_path)[-1]
    if how == "bit":
        damage(newest)
    else:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    resumed, source = run_training(tmp_path, single_rank())
    assert source.steps[0] == 3
    assert newest.name in caplog.text
    reference = uninterrupted()
    expect_same(resumed, reference.state)
    assert records_without_timings(tmp_path) == records_without_timings(reference.work)


def test_damaged_checkpoints_never_push_out_the_intact_one(tmp_path):
    settings = SETTINGS.model_copy(update={"checkpoint_every": 2})
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), settings=settings, die_at=3)
    kept = checkpoints(tmp_path)[0].read_bytes(), checkpoints(tmp_path)[0]
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), settings=settings, die_at=7)
    kept[1].write_bytes(kept[0])  # killed before the oldest was removed: three are there, two of them damaged
    for path in checkpoints(tmp_path)[1:]:
        damage(path)
    with pytest.raises(Interrupted):
        run_training(tmp_path, single_rank(), settings=settings, stop_at=2)
    _, source = run_training(tmp_path, single_rank(), settings=settings)
    assert source.steps[0] == 3


def test_without_an_intact_checkpoint_it_says_so_and_does_not_start_anew(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=7)
    for path in checkpoints(tmp_path):
        damage(path)
    with pytest.raises(IntegrityError, match=r"(?s)every checkpoint is damaged.*fix: delete"):
        run_training(tmp_path, single_rank())


def test_half_a_checkpoint_of_a_killed_writer_is_no_checkpoint(tmp_path, uninterrupted):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=4)
    (tmp_path / "checkpoints" / ".partial").write_bytes(checkpoints(tmp_path)[-1].read_bytes()[:1000])
    resumed, source = run_training(tmp_path, single_rank())
    assert source.steps[0] == 3
    expect_same(resumed, uninterrupted().state)
    assert [path.name[:13] for path in checkpoints(tmp_path)] == ["step-00000006", "step-00000008"]


def test_it_does_not_go_on_with_another_number_of_threads_or_ranks(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=4)
    message = r"(?s)with %s, this run has %s .*fix: run with execution.allow_layout_change"
    with pytest.raises(PreflightError, match=message % ("threads: 1", "threads: 2")):
        run_training(tmp_path, single_rank(), threads=2)
    with pytest.raises(PreflightError, match=message % ("processes: 1", "processes: 3")):
        run_training(tmp_path, replace(single_rank(), world=3))


def test_it_goes_on_with_another_layout_where_that_is_allowed_and_says_so(tmp_path, uninterrupted, caplog):
    reference = uninterrupted().state
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=4)
    moved, source = run_training(tmp_path, single_rank(), threads=2, layout_may_change=True)
    assert source.steps[0] == 3
    assert "goes on with threads: 2, begun with threads: 1: not bit for bit" in caplog.text
    for name, tensor in moved.items():
        torch.testing.assert_close(tensor, reference[name], rtol=1e-3, atol=1e-4)
    with safe_open(checkpoints(tmp_path)[-1], framework="pt") as file:
        assert json.loads(file.metadata()["layouts"]) == [
            {"processes": 1, "threads": 1, "data_parallel": "all_reduce", "from_step": 0},
            {"processes": 1, "threads": 2, "data_parallel": "all_reduce", "from_step": 3},
        ]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=4)
    with pytest.raises(IntegrityError, match="does not fit"):
        run_training(tmp_path, single_rank(), kind="diffusion")


def test_a_checkpoint_of_other_problems_is_refused(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), die_at=4)
    with pytest.raises(IntegrityError, match="does not fit"):
        run_training(tmp_path, single_rank(), kind="mix")


# --- several problems -----------------------------------------------------------------------------

# No two of these fall on the same steps: what a record or a validation sums up began before the checkpoint.
LONGER = SETTINGS.model_copy(update={"steps": 22, "validate_every": 5, "checkpoint_every": 4, "log_every": 3})


@pytest.mark.parametrize("step", some_slow([4, 6, 8, 9, 13, 17, 20, 21], but={6, 13}))
def test_a_mix_that_was_killed_between_validations_goes_on_with_its_weights(tmp_path, uninterrupted, step):
    """The weights at the kill come from a validation whose step is not a checkpoint's."""
    reference = uninterrupted("mix", LONGER)
    final = reference.source.state()
    assert final["weights"] != [0.5, 0.5]
    assert final["since"] == LONGER.steps
    with pytest.raises(Killed):
        run_training(tmp_path, single_rank(), kind="mix", settings=LONGER, die_at=step)
    resumed, again = run_training(tmp_path, single_rank(), kind="mix", settings=LONGER)
    assert again.steps[0] == step // 4 * 4
    assert again.problems == reference.source.problems[again.steps[0] :]
    assert again.state() == final
    expect_same(resumed, reference.state)
    assert records_without_timings(tmp_path) == records_without_timings(reference.work)


def test_a_problem_that_had_no_turn_before_the_checkpoint_begins_after_it(tmp_path):
    """Adam has no state of its weights then, and the checkpoint none to hold."""
    late = next(
        seed
        for seed in range(1000)
        if all(windows_of("mix", single_rank(), seed).batch(n).problem == PROBLEM for n in range(4))
    )
    reference, source = run_training(tmp_path / "reference", single_rank(), kind="mix", seed=late)
    assert "square" in source.problems
    work = tmp_path / "killed"
    with pytest.raises(Killed):
        run_training(work, single_rank(), kind="mix", seed=late, die_at=4)
    (held,) = checkpoints(work)
    with safe_open(held, framework="pt") as file:
        names = list(file.keys())
    weights = [name for name in names if name.startswith("ema/")]
    moments = [name for name in names if name.endswith("/exp_avg")]
    of_square = [name for name in weights if ".problem_square." in name]
    assert len(moments) == len(weights) - len(of_square)
    resumed, _ = run_training(work, single_rank(), kind="mix", seed=late)
    expect_same(resumed, reference)


def test_records_name_what_belongs_to_a_problem(uninterrupted):
    records = records_without_timings(uninterrupted("mix", LONGER).work)
    validations = [record for record in records if "validation_error" in record]
    assert [record["step"] for record in validations] == [5, 10, 15, 20, 22]
    for record in validations:
        of_problem = [record[f"validation_error/{name}"] for name in MIX]
        assert record["validation_error"] == pytest.approx(sum(of_problem) / 2)
        assert of_problem[0] != of_problem[1]
    trained = [record for record in records if "loss" in record]
    assert [record["step"] for record in trained] == sorted({1, *range(3, 22, 3), 5, 10, 15, 20, 22})
    both = [record for record in trained if f"loss/{PROBLEM}" in record]
    assert both
    for record in both:
        assert record["loss"] == pytest.approx((record[f"loss/{PROBLEM}"] + record["loss/square"]) / 2)


def test_records_of_one_problem_have_plain_names(uninterrupted):
    assert not [
        name for record in records_without_timings(uninterrupted().work) for name in record if "/" in name
    ]


def test_an_error_that_is_not_finite_stops_a_training_whose_weights_follow_it(tmp_path):
    class Diverged(Source):
        def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
            super().reweigh(step, dict(errors) | {"square": float("nan")})

    source = Diverged("mix", single_rank(), 5)
    objective = Reconstruction(normalisations(MIX))
    model, checked = fresh("autoencoder", shapes=MIX), validation_of("mix", single_rank(), objective)
    with pytest.raises(NotFiniteError, match="validation error of square is nan at step 4"):
        train(model, objective, source, checked, SETTINGS, single_rank(), tmp_path, **RUN)
    assert [path.name[:13] for path in checkpoints(tmp_path)] == ["step-00000003"]


# --- several ranks --------------------------------------------------------------------------------


def train_with_peers(
    ranks: Ranks, work: str, fates: list[dict[str, int]], kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    result: dict[str, Tensor] = {}
    weights: dict[str, Any] = {}
    for fate in fates:
        ranks.stop_requested = False
        if fate.get("stop_at") is not None and ranks.rank != 1:
            fate = {}  # one rank alone gets the signal
        with suppress(Killed, Interrupted):
            result, source = run_training(Path(work), ranks, kind=kind, **fate)
            weights = source.state()
        ranks.barrier()
    return result, weights


@pytest.mark.parametrize(("world", "kind"), [(3, "autoencoder"), (2, "mix")])
def test_ranks_add_in_the_same_order_after_a_resume(tmp_path, world, kind):
    """And agree on the weights of a mix, though each has seen other validation examples."""
    reference = run_ranks(train_with_peers, world, str(tmp_path / "reference"), [{}], kind)
    fates = [{"die_at": 2}, {"stop_at": 4}, {"die_at": 7}, {}]
    resumed = run_ranks(train_with_peers, world, str(tmp_path / "resumed"), fates, kind)
    for (left, weights), (right, others) in zip(resumed, reference, strict=True):
        expect_same(left, right)
        expect_same(left, reference[0][0])
        assert weights == others == reference[0][1]
    assert records_without_timings(tmp_path / "resumed") == records_without_timings(tmp_path / "reference")
    if kind == "mix":
        assert reference[0][1]["weights"][0] != reference[0][1]["weights"][1]


def validated_with_peers(ranks: Ranks) -> list[dict[str, Any]]:
    """A validation of a mix, as every rank gets it; the step before it changes no weight."""
    received = []

    class Telling(Source):
        def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
            received.append(dict(errors))
            super().reweigh(step, errors)

    objective = Reconstruction(normalisations(MIX))
    with tempfile.TemporaryDirectory() as work:
        train(
            fresh("autoencoder", shapes=MIX),
            objective,
            Telling("mix", ranks, 5),
            validation_of("mix", ranks, objective),
            SETTINGS.model_copy(
                update={"steps": 1, "warmup_steps": 0, "learning_rate": 1e-30, "final_learning_rate": 0.0}
            ),
            ranks,
            Path(work),
            **RUN,
        )
    return received


@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_a_validation_add_up_to_the_validation(world):
    """Five and three examples for two or four ranks: shares differ in size, and one is empty."""
    (by_one_rank,) = validated_with_peers(single_rank())
    results = [errors for (errors,) in run_ranks(validated_with_peers, world)]
    assert all(result == results[0] for result in results), "the same on all ranks, to the bit"
    for name, value in by_one_rank.items():
        assert results[0][name] == pytest.approx(value, rel=1e-5)


CONFIGURATION = Path(__file__).parents[2] / "configs" / "burgers_tiny.yaml"
LONG = {
    "execution.device": "cpu",
    "tracking.wandb": "disabled",
    "training.autoencoder.steps": 150,
    "training.autoencoder.checkpoint_every": 7,
    "training.autoencoder.log_every": 1,
}


TWO_PROBLEMS = {
    "data": {
        "source": "mix",
        "sampling": "difficulty_weighted",
        "problems": {
            "slow": {
                "source": "generated", "equation": "advection1d", "beta": 0.1, "resolution": 32,
                "solver_resolution": 32, "frames": 9, "frame_interval": 0.05,
                "trajectories": {"train": 16, "validation": 4, "test": 4},
            },
            "fast": {
                "source": "generated", "equation": "advection1d", "beta": 1.0, "resolution": 16,
                "solver_resolution": 32, "frames": 5, "frame_interval": 0.05,
                "trajectories": {"train": 8, "validation": 1, "test": 4},
            },
        },
    },
    "model.latent.tokens": {"slow": 8, "fast": 4},
    "training.autoencoder.validate_every": 11,
}  # fmt: skip


class Launched:
    """The chain up to the autoencoder, through launcher and torchrun, with a signal on the way."""

    def __init__(
        self, root: Path, processes: int, overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.root, self.processes, self.overrides = root, processes, overrides
        self.returncodes: list[int] = []
        self.lines: list[str] = []
        launch = execute_module.launch

        def note_the_return_code(*arguments: Any, **options: Any) -> int:
            self.returncodes.append(launch(*arguments, **options))
            return self.returncodes[-1]

        monkeypatch.setattr(execute_module, "launch", note_the_return_code)

    def train(self, *, signal_after: int | None = None, number: int = 0, to: str = "") -> Path:
        """The artifact's directory. Sends `number` to the process `to` once a step is logged."""
        run = Run.start(
            CONFIGURATION,
            LONG | self.overrides | {"execution.processes": self.processes},
            root=self.root,
            until="autoencoder",
        )
        self.lines = []
        sent = False

        def on_line(line: str) -> None:
            nonlocal sent
            self.lines.append(line)
            step = line.removeprefix("autoencoder ").partition("/")[0]
            if signal_after is not None and not sent and step.isdecimal() and int(step) >= signal_after:
                sent = True
                os.kill(self._process(to), number)

        run.stage("download", on_line=lambda _: None)
        assert run.adopt("autoencoder") is None
        digest = run.plan["autoencoder"].digest
        assert digest is not None, "its key is known now"
        self.work = run.store.work("autoencoder", digest)
        self.returncodes = []
        return run.stage("autoencoder", on_line=on_line).artifact.path

    def _process(self, name: str) -> int:
        """The launcher, or a rank by its number, of this work directory."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if str(self.work).encode() not in words and f"--work={self.work}".encode() not in words:
                    continue
                if name == "launcher" and b"ups.pipeline.supervise.launcher" in words:
                    return int(entry.name)
                is_rank = (
                    b"torch.distributed.run" not in words and b"ups.pipeline.supervise.launcher" not in words
                )
                if is_rank and f"RANK={name}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    return int(entry.name)
        raise AssertionError(f"{name} does not run")

    def resumed_at(self) -> int:
        (line,) = [line for line in self.lines if " resumes at step " in line]
        return int(line.split(" resumes at step ")[1].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        pytest.param(1, {}, marks=pytest.mark.long),
        (2, {}),
        pytest.param(2, TWO_PROBLEMS, marks=pytest.mark.long),
    ],
)
def test_killed_and_stopped_under_the_launcher_it_seals_the_same_weights(
    tmp_path, monkeypatch, processes, overrides
):
    reference = Launched(tmp_path / "reference", processes, overrides, monkeypatch).train()
    shutil.copytree(
        tmp_path / "reference" / "artifacts" / "download", tmp_path / "hit" / "artifacts" / "download"
    )
    hit = Launched(tmp_path / "hit", processes, overrides, monkeypatch)

    with pytest.raises(ProcessKilled, match="SIGKILL"):
        hit.train(signal_after=10, number=signal.SIGKILL, to=str(processes - 1))
    assert checkpoints(hit.work), "the signal came too early for this test to mean anything"

    with pytest.raises(Interrupted):
        hit.train(signal_after=30, number=signal.SIGTERM, to="launcher")
    assert hit.returncodes == [75]
    killed_before = hit.resumed_at()
    assert 0 < killed_before < 150
    assert killed_before % 7 == 0
    stopped_at = json.loads((hit.work / "interrupted.json").read_text())["step"]
    assert 30 <= stopped_at < 150

    sealed = hit.train()
    assert hit.returncodes == [0]
    assert hit.resumed_at() == stopped_at, "a step was lost"
    assert (sealed / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    records = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMINGS}
            for line in (path / "logs" / "metrics.jsonl").read_text().splitlines()
        ]
        for path in (sealed, reference)
    ]
    assert records[0] == records[1]
