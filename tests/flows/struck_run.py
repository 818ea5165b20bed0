"""A run that everything happens to: each fault once, in a seeded order and at seeded moments."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from launches import double_work, killed, launches, steps_done_again
from marked_processes import marked
from orchestra import STAGES as SHOWN
from orchestra import Orchestra, wait_for
from postgres import Postgres

from ups.artifacts.files import read_json, read_records
from ups.config.schema import TRAINING_STAGES

STAGES = tuple(name.replace("-", "_") for name in SHOWN)
STEPS, CHECKPOINT_EVERY = 1200, 50  # long enough that a server which is away comes back to a training
TRAINING = {
    "steps": STEPS,
    "checkpoint_every": CHECKPOINT_EVERY,
    "log_every": 10,  # the logs tell how many steps were done
    "validate_every": 400,
}
FAULTS = ("cancel", "flow", "worker", "agent", "rank", "server", "database")
WRONG = ("orphans", "lost stages", "hangs", "double work", "ends without a checkpoint")
SECONDS_TO_REPORT = 2.0
LONGEST_PAUSE = 3.0  # seconds that a server is away, and into a stage that counts no steps


def overrides(stages: Iterable[str]) -> dict[str, Any]:
    """Two ranks, and trainings of those stages that last for some seconds."""
    longer = {
        f"training.{stage}.{key}": value
        for stage in stages
        if stage in TRAINING_STAGES
        for key, value in TRAINING.items()
    }
    return {"execution.processes": 2} | longer


class StruckRun:
    """One repetition. `counted` is what went wrong, and how often."""

    def __init__(
        self,
        orchestra: Orchestra,
        postgres: Postgres,
        stages: tuple[str, ...],
        asked: dict[str, Any],
        seed: int,
    ) -> None:
        """stages: those that are built, and struck; the others are sealed already."""
        self.orchestra, self.postgres, self.asked = orchestra, postgres, asked
        self.random = random.Random(seed)
        # In the first half of a stage, so that it lasts while a server is away.
        moments = sorted(
            (STAGES.index(self.random.choice(stages)), self.random.uniform(0, 0.5)) for _ in FAULTS
        )
        faults = self.random.sample(FAULTS, len(FAULTS))
        self.plan = [
            (fault, STAGES[stage], part) for fault, (stage, part) in zip(faults, moments, strict=True)
        ]
        self.earlier_runs = orchestra.runs()
        self.sealed: dict[Path, int] = {}
        self.counted = Counter[str](dict.fromkeys(WRONG, 0))
        self.cancel_seconds = 0.0
        self.flow_run: dict[str, Any] = {}

    def live(self) -> Path:
        """Start, strike and do what a user does, to the end; the run's directory."""
        self.orchestra.start_worker()
        self.flow_run = self.orchestra.run(self.asked)
        for fault, stage, part in self.plan:
            self._wait(f"{part:.2f} of {stage}", lambda stage=stage, part=part: self._reached(stage, part))
            self.counted["faults that came after their stage's end"] += self._is_sealed(stage)
            print(f"{fault} at {part:.2f} of {stage}")
            getattr(self, f"_{fault}")()
            self._look_for_losses()
        self._wait("the end", lambda: self.orchestra.ended(self.flow_run) == "Completed")
        self._look_for_losses()
        self._note_work()
        return self.orchestra.runs()[-1]

    def _note_work(self) -> None:
        """Told to end, a training writes a checkpoint first. Killed, it loses what came after the last one; the next may have
        been half-written. Nobody but this test kills it."""
        runs = [run for run in self.orchestra.runs() if run not in self.earlier_runs]
        trainings = [launches(runs, stage) for stage in TRAINING_STAGES]
        print("launches:", *filter(None, trainings), sep="\n")
        kills = sum(fault in {"agent", "rank"} for fault, _, _ in self.plan)
        self.counted["steps done again"] = sum(map(steps_done_again, trainings))
        self.counted["double work"] = sum(double_work(each, 2 * CHECKPOINT_EVERY) for each in trainings)
        self.counted["ends without a checkpoint"] = max(0, sum(map(killed, trainings)) - kills)

    def _wait(self, what: str, find: Any) -> Any:
        def found_or_ended() -> Any:
            self._try_again_if_it_ended()
            return find()

        try:
            return wait_for(what, found_or_ended, self.orchestra.worker_said)
        except pytest.fail.Exception:
            self.counted["hangs"] += 1
            raise

    def _try_again_if_it_ended(self) -> None:
        """As a user does, who is not faster than Prefect: its worker calls a killed run Crashed a second time when
        the process that watched over it has ended, and a retry meanwhile looks crashed until it runs."""
        if self._has_ended_badly():
            wait_for("Prefect's processes of the run", lambda: not marked(self.flow_run["id"]))
            time.sleep(SECONDS_TO_REPORT)
            if not self._has_ended_badly():
                return
            self.counted["tried again by hand"] += 1
            if self.random.random() < 0.5:
                self.orchestra.retry(self.flow_run)
            else:
                self.flow_run = self.orchestra.run(self.asked)

    def _has_ended_badly(self) -> bool:
        return self.orchestra.ended(self.flow_run) not in {None, "Completed"}

    def _reached(self, stage: str, part: float) -> bool:
        """That part of a training's steps; as far into another stage; or the stage's end."""
        if self._is_sealed(stage):
            return True
        work = self.orchestra.root / "artifacts" / ".work" / stage
        if stage in TRAINING_STAGES:
            files = work.glob("*/output/logs/metrics.jsonl")
            last = [records[-1] for records in map(read_records, files) if records]
            return any(record["step"] >= part * record["steps"] for record in last)
        began = any(work.glob("*/request.json"))
        if began:
            time.sleep(LONGEST_PAUSE * part)
        return began

    def _is_sealed(self, stage: str) -> bool:
        return any((self.orchestra.root / "artifacts" / stage).glob("*/manifest.json"))

    def _look_for_losses(self) -> None:
        """What is sealed stays, and nobody builds it again."""
        found = {file: file.stat().st_ino for file in self.orchestra.root.glob("artifacts/*/*/manifest.json")}
        self.counted["lost stages"] += sum(found.get(file) != inode for file, inode in self.sealed.items())
        self.sealed = found

    def _cancel(self) -> None:
        """As the UI does."""
        self._targets("launcher")  # something is there to be cancelled
        started = time.monotonic()
        self.orchestra.cancel(self.flow_run)
        self._expect_no_stage()
        self.cancel_seconds = time.monotonic() - started
        assert self.orchestra.final_state(self.flow_run) == "Cancelled"

    def _flow(self) -> None:
        self._targets("launcher")
        os.kill(self.orchestra.engine(), signal.SIGKILL)
        assert self.orchestra.final_state(self.flow_run) == "Crashed"
        self._expect_no_stage()

    def _worker(self) -> None:
        self._targets("launcher")
        self.orchestra.worker.kill()
        self.orchestra.worker.wait()
        self._expect_no_stage()
        self.orchestra.start_worker()
        print("after the worker's end:", self.orchestra.final_state(self.flow_run))

    def _agent(self) -> None:
        self._kill("agent")

    def _rank(self) -> None:
        self._kill("rank")

    def _kill(self, role: str) -> None:
        """The flow tries again by itself."""
        pid = self.random.choice(self._targets(role))
        os.kill(pid, signal.SIGKILL)
        self._wait("the end of that launch", lambda: pid not in self.orchestra.stage_processes())

    def _targets(self, role: str) -> list[int]:
        """Processes of a role; where the stage has no ranks its launcher is for the agent."""
        return self._wait(
            f"a process: {role}",
            lambda: (
                self.orchestra.stage_processes(role)
                or (self.orchestra.stage_processes("rank") and self.orchestra.stage_processes("launcher"))
            ),
        )

    def _server(self) -> None:
        self.orchestra.server.kill()
        self.orchestra.server.wait()
        time.sleep(self.random.uniform(0, LONGEST_PAUSE))
        self.orchestra.start_server()

    def _database(self) -> None:
        self.postgres.kill()
        time.sleep(self.random.uniform(0, LONGEST_PAUSE))
        self.postgres.start()

    def _expect_no_stage(self) -> None:
        try:
            wait_for("the stage to end", lambda: not self.orchestra.stage_processes())
        except pytest.fail.Exception:
            self.counted["orphans"] += len(self.orchestra.stage_processes())
            raise


def results(run: Path) -> dict[str, Any]:
    """What a run has come to: contents of its artifacts, and its table without what a clock says."""
    pointers = read_json(run / "artifacts.json")
    table = [row for row in read_json(run / "metrics.json") if row["metric"] != "seconds_per_trajectory"]
    contents = {
        stage: read_json((run / pointers[stage]["path"] / "manifest.json").resolve())["content"]
        for stage in STAGES
        if stage != "evaluate"  # it measures seconds
    }
    return contents | {"table": table}


def remove(root: Path, stages: Iterable[str]) -> None:
    """As if nobody had built them, nor the trajectories that `download` consists of."""
    for stage in (*stages, "figures", *(["data"] if "download" in stages else [])):
        shutil.rmtree(root / "artifacts" / stage, ignore_errors=True)
        shutil.rmtree(root / "artifacts" / ".work" / stage, ignore_errors=True)
