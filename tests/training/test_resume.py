"""A training that was killed, stopped or damaged ends with the weights of one that was left alone, bit for bit."""

import json
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from tiny import alone, fresh, random_batch, waves
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.data.windows import WindowSource
from ups.errors import IntegrityError, Interrupted, PreflightError, ProcessKilled
from ups.models.token_grid import cell_centres
from ups.objectives import Objective
from ups.objectives.autoencoder import Reconstruction
from ups.objectives.diffusion import ResidualDenoising
from ups.pipeline import execute as execute_module
from ups.pipeline.run import Run
from ups.runtime.ranks import Ranks
from ups.runtime.records import read_records
from ups.training.loop import LoopSettings, train
from ups.training.step import TrainingState

STEPS = 8
SETTINGS = LoopSettings(
    stage="autoencoder",
    seed=5,
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
    threads=1,
    bf16=False,
)
TIMINGS = {"seconds_per_step", "data_wait_fraction"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Source:
    """Batches of one stage; notes which steps were asked for, and can die or stop at one of them."""

    def __init__(self, kind: str, ranks: Ranks, *, die_at: int = -1, stop_at: int = -1) -> None:
        self.kind, self.ranks, self.die_at, self.stop_at = kind, ranks, die_at, stop_at
        self.steps: list[int] = []
        self.windows = WindowSource(
            seed=5,
            batch_size=6,
            window=1,
            scalars=[-3.0, -4.6],
            device=ranks.device,
            fields=waves(10, 5).numpy(),
            rank=ranks.rank,
            world=ranks.world,
        )

    def batch(self, step: int) -> Batch:
        if step == self.die_at:
            raise Killed
        if step == self.stop_at:
            self.ranks.stop_requested = True
        self.steps.append(step)
        if self.kind == "autoencoder":
            return self.windows.batch(step)
        return random_batch(6, seed=step)


def run_training(
    work: Path, ranks: Ranks, *, kind: str = "autoencoder", settings: LoopSettings = SETTINGS, **fate: int
) -> tuple[dict[str, Tensor], list[int]]:
    """Train in `work`; all tensors of the final state, and the steps that were taken."""
    model = fresh(kind)
    objective: Objective = Reconstruction(cell_centres([32]), query_points=16)
    if kind == "diffusion":
        objective = ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2)
    source = Source(kind, ranks, **fate)
    held_out = random_batch(4, seed=99)

    def validate(averaged: nn.Module) -> dict[str, float]:
        assert not averaged.training
        return {
            "validation_loss": objective(averaged, held_out, torch.Generator().manual_seed(0)).total.item()
        }

    state = train(model, objective, source, validate, settings, ranks, work)
    return everything(state), source.steps


def everything(state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value.clone() for name, value in state.model.state_dict().items()}
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


@pytest.mark.parametrize("kind", ["autoencoder", "diffusion"])
def test_killed_at_any_step_it_ends_the_same(tmp_path, kind):
    reference, _ = run_training(tmp_path / "reference", alone(), kind=kind)
    for step in range(STEPS):
        work = tmp_path / f"killed-{step}"
        with pytest.raises(Killed):
            run_training(work, alone(), kind=kind, die_at=step)
        resumed, steps = run_training(work, alone(), kind=kind)
        assert steps[0] == step // 3 * 3, "it goes on from the newest checkpoint"
        expect_same(resumed, reference)
        assert records_without_timings(work) == records_without_timings(tmp_path / "reference")


def test_killed_at_every_step_it_ends_the_same(tmp_path):
    settings = replace(SETTINGS, checkpoint_every=1)
    reference, _ = run_training(tmp_path / "reference", alone(), settings=settings)
    for step in range(1, STEPS):
        with pytest.raises(Killed):
            run_training(tmp_path / "killed", alone(), settings=settings, die_at=step)
    resumed, steps = run_training(tmp_path / "killed", alone(), settings=settings)
    assert steps == [STEPS - 1]
    expect_same(resumed, reference)


def test_a_finished_training_is_found_finished(tmp_path):
    reference, _ = run_training(tmp_path, alone())
    before = records_without_timings(tmp_path)
    again, steps = run_training(tmp_path, alone())
    assert steps == []
    expect_same(again, reference)
    assert records_without_timings(tmp_path) == before


@pytest.mark.parametrize("step", range(STEPS - 1))
def test_stopped_at_any_step_it_loses_none(tmp_path, step):
    reference, _ = run_training(tmp_path / "reference", alone())
    work = tmp_path / "stopped"
    source_steps: list[int] = []
    with pytest.raises(Interrupted, match=f"at step {step + 1} of {STEPS}"):
        run_training(work, alone(), stop_at=step)
    assert json.loads((work / "interrupted.json").read_text()) == {"step": step + 1}
    resumed, source_steps = run_training(work, alone())
    assert source_steps == list(range(step + 1, STEPS))
    expect_same(resumed, reference)
    assert records_without_timings(work) == records_without_timings(tmp_path / "reference")


def test_asked_to_stop_in_the_last_step_it_ends_well(tmp_path):
    run_training(tmp_path, alone(), stop_at=STEPS - 1)
    assert not (tmp_path / "interrupted.json").exists()


@pytest.mark.parametrize("how", ["bit", "half"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, how, caplog):
    reference, _ = run_training(tmp_path / "reference", alone())
    work = tmp_path / "damaged"
    with pytest.raises(Killed):
        run_training(work, alone(), die_at=7)
    newest = checkpoints(work)[-1]
    if how == "bit":
        damage(newest)
    else:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    resumed, steps = run_training(work, alone())
    assert steps[0] == 3
    assert newest.name in caplog.text
    expect_same(resumed, reference)
    assert records_without_timings(work) == records_without_timings(tmp_path / "reference")


def test_damaged_checkpoints_never_push_out_the_intact_one(tmp_path):
    settings = replace(SETTINGS, checkpoint_every=2)
    with pytest.raises(Killed):
        run_training(tmp_path, alone(), settings=settings, die_at=3)
    kept = checkpoints(tmp_path)[0].read_bytes(), checkpoints(tmp_path)[0]
    with pytest.raises(Killed):
        run_training(tmp_path, alone(), settings=settings, die_at=7)
    kept[1].write_bytes(kept[0])  # killed before the oldest was removed: three are there, two of them damaged
    for path in checkpoints(tmp_path)[1:]:
        damage(path)
    with pytest.raises(Interrupted):
        run_training(tmp_path, alone(), settings=settings, stop_at=2)
    _, steps = run_training(tmp_path, alone(), settings=settings)
    assert steps[0] == 3


def test_without_an_intact_checkpoint_it_says_so_and_does_not_start_anew(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, alone(), die_at=7)
    for path in checkpoints(tmp_path):
        damage(path)
    with pytest.raises(IntegrityError, match=r"(?s)every checkpoint is damaged.*fix: delete"):
        run_training(tmp_path, alone())


def test_half_a_checkpoint_of_a_killed_writer_is_no_checkpoint(tmp_path):
    reference, _ = run_training(tmp_path / "reference", alone())
    work = tmp_path / "killed"
    with pytest.raises(Killed):
        run_training(work, alone(), die_at=4)
    (work / "checkpoints" / ".partial").write_bytes(checkpoints(work)[-1].read_bytes()[:1000])
    resumed, steps = run_training(work, alone())
    assert steps[0] == 3
    expect_same(resumed, reference)
    assert [path.name[:13] for path in checkpoints(work)] == ["step-00000006", "step-00000008"]


def test_it_does_not_go_on_with_another_number_of_threads_or_ranks(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, alone(), die_at=4)
    with pytest.raises(PreflightError, match=r"(?s)threads 1, this run has 2.*fix: run with threads 1"):
        run_training(tmp_path, alone(), settings=replace(SETTINGS, threads=2))
    with pytest.raises(PreflightError, match=r"(?s)world 1, this run has 3.*fix: run with world 1"):
        run_training(tmp_path, replace(alone(), world=3))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    with pytest.raises(Killed):
        run_training(tmp_path, alone(), die_at=4)
    with pytest.raises(IntegrityError, match="does not fit"):
        run_training(tmp_path, alone(), kind="diffusion")


def train_with_peers(ranks: Ranks, work: str, fates: list[dict[str, int]]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for fate in fates:
        ranks.stop_requested = False
        if fate.get("stop_at") is not None and ranks.rank != 1:
            fate = {}  # one rank alone gets the signal
        with suppress(Killed, Interrupted):
            result, _ = run_training(Path(work), ranks, **fate)
        ranks.barrier()
    return result


def test_three_ranks_add_in_the_same_order_after_a_resume(tmp_path):
    reference = run_ranks(train_with_peers, 3, str(tmp_path / "reference"), [{}])
    fates = [{"die_at": 2}, {"stop_at": 4}, {"die_at": 7}, {}]
    resumed = run_ranks(train_with_peers, 3, str(tmp_path / "resumed"), fates)
    for left, right in zip(resumed, reference, strict=True):
        expect_same(left, right)
        expect_same(left, reference[0])
    assert records_without_timings(tmp_path / "resumed") == records_without_timings(tmp_path / "reference")


CONFIGURATION = Path(__file__).parents[2] / "configs" / "burgers_tiny.yaml"
LONG = {
    "execution.device": "cpu",
    "tracking.wandb": "disabled",
    "training.autoencoder.steps": 150,
    "training.autoencoder.checkpoint_every": 7,
    "training.autoencoder.log_every": 1,
}


class Launched:
    """The chain up to the autoencoder, through launcher and torchrun, with a signal on the way."""

    def __init__(self, root: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.processes = root, processes
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
            LONG | {"execution.processes": self.processes},
            root=self.root,
            until="autoencoder",
        )
        self.work = run.store.work("autoencoder", run.plan["autoencoder"].digest)
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
                if name == "launcher" and b"ups.pipeline.launcher" in words:
                    return int(entry.name)
                is_rank = b"torch.distributed.run" not in words and b"ups.pipeline.launcher" not in words
                if is_rank and f"RANK={name}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    return int(entry.name)
        raise AssertionError(f"{name} does not run")

    def resumed_at(self) -> int:
        (line,) = [line for line in self.lines if " resumes at step " in line]
        return int(line.split(" resumes at step ")[1].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_stopped_under_the_launcher_it_seals_the_same_weights(tmp_path, monkeypatch, processes):
    reference = Launched(tmp_path / "reference", processes, monkeypatch).train()
    shutil.copytree(
        tmp_path / "reference" / "artifacts" / "download", tmp_path / "hit" / "artifacts" / "download"
    )
    hit = Launched(tmp_path / "hit", processes, monkeypatch)

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
