"""A run: its directory, its plan, its stages one after the other, its gates, its report, and how it ended."""

import fcntl
import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from ups.artifacts import Artifact, Store
from ups.artifacts.files import read_json, read_records, storage_error, write_json, write_text
from ups.artifacts.identity import code_identity, digest_of
from ups.artifacts.remote import Remote
from ups.artifacts.store import BusyError
from ups.config import Configuration, load_configuration
from ups.config.conditioning import FITTED_FILE
from ups.config.schema import DATA, STAGES
from ups.errors import (
    EXIT_OK,
    ConfigurationError,
    IntegrityError,
    Interrupted,
    ProcessKilled,
    StorageError,
    UpsError,
    is_interruption,
)
from ups.pipeline.device import require_machine, require_one_machine, resolve
from ups.pipeline.execute import (
    Built,
    Listener,
    execute,
    last_step,
    remaining_bytes,
    require_space,
    sealed_or_brought,
)
from ups.pipeline.gates import Kind, Verdict, judge_results, judge_trainings, require_passed
from ups.pipeline.graph import chain_to
from ups.pipeline.mirror import Mirror
from ups.pipeline.plan import PlannedStage, derive, make_plan, require_fit
from ups.pipeline.provenance import environment
from ups.pipeline.rebuild import NOTHING, Rebuild
from ups.pipeline.supervise.launch import launch
from ups.pipeline.supervise.outcome import classify
from ups.pipeline.supervise.rendezvous import Rendezvous
from ups.problems.generated import Generated

Progress = Callable[[str, dict[str, Any]], None]
Output = Callable[[str], None]
Pointer = dict[str, str]
"""{"stage", "digest", "content", "path"} of an artifact: its key, the sum of its contents, and where it lies below the
root, which may be moved."""

RUNS = "runs"
PLAN = "plan.json"
ARTIFACTS = "artifacts.json"
METRICS = "metrics.jsonl"
OUTSIDE = "outside.json"
"""Records outside the training range; empty where none were asked for."""
GATES = "gates.json"
"""Verdicts of the gates, where the configuration has some."""
ENDED = "ended.json"
"""State, message, exit code and time of a run's end; none of a run that goes on, or whose process was killed."""
_DIGITS = 8  # of a configuration's digest, in the name of a run's directory
LOCK = "run.lock"
"""Locked as long as the run goes on: the kernel frees it, however its process ends."""


def find_root(root: str | Path | None) -> Path:
    """Where `artifacts/` and `runs/` are: the argument, else UPS_ROOT, else the working directory."""
    return Path(root or os.environ.get("UPS_ROOT") or ".").absolute()


def find_run(name: Path, root: Path | None) -> Path:
    """The directory of a run that is given by its path, or by its name below the root's `runs/`."""
    named = find_root(root) / RUNS / name
    return named if not name.exists() and named.is_dir() else name.absolute()


def directories_of(root: Path, configuration: Configuration) -> list[Path]:
    """Of the runs of a resolved configuration below a root, the oldest first."""
    digest = digest_of(configuration.model_dump(mode="json"))
    return sorted((root / RUNS).glob(f"*-{configuration.name}-{digest[:_DIGITS]}"))


class Run:
    """One execution of a configuration.

    `runs/<UTC time>-<name>-<digest>/` holds config.yaml, plan.json, env.json, metrics.jsonl (all training
    records), metrics.json (the result table), outside.json (the same outside the training range), conditioning.json (what
    was fitted for test-time conditioning), artifacts.json
    (pointers), gates.json (verdicts), logs/, report.html, ended.json (how it ended); and scores/, what `ups evaluate`
    found. As a context it notes how its work ended, and then closes.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        plan: Iterable[PlannedStage],
        directory: Path,
        rebuild: Rebuild = NOTHING,
    ) -> None:
        self.configuration = configuration
        self.store = store
        self.plan = {stage.name: stage for stage in plan}
        self.directory = directory
        self.rebuild = rebuild
        self.built: dict[str, Built] = {}
        self._mirror = Mirror(directory, configuration.tracking)
        self._leases = ExitStack()

    @classmethod
    def start(
        cls,
        config: str | Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        root: str | Path | None = None,
        until: str | None = None,
        rebuild: Iterable[str] = (),
        asked: datetime | None = None,
        private: bool = False,
    ) -> "Run":
        """Load, resolve, plan, and make the run's directory.

        rebuild, asked: stages to build again, and since when, see `ups.pipeline.rebuild`.
        private: its root is its own, and shares nothing with other machines: what is measured there is measured here.

        Raises:
            ConfigurationError, PreflightError, DataError: the run cannot work; nothing was written.
            StorageError: the root cannot be written.
        """
        configuration = resolve(load_configuration(config, overrides))
        require_machine(configuration)
        store = Store(find_root(root), remote=None if private else Remote.from_environment())
        chosen = Rebuild.of(rebuild, chain_to(until), asked)
        if chosen.stages:  # `ups join` knows nothing of it: what is sealed is done for the other machines
            require_one_machine(configuration, "a rebuild")
        plan = make_plan(configuration, store, until, chosen)
        missing = [stage for stage in plan if stage.verdict == "MISS"]
        if configuration.execution.nodes > 1 and any(STAGES[stage.name].parallel for stage in missing):
            Rendezvous.here(configuration.execution.nodes)  # rather now than after the download
        require_space(store.artifacts, sum(bytes_to_write(store, configuration, plan).values()), "this run")
        values = configuration.model_dump(mode="json")
        directory = _make_directory(store.root / RUNS, configuration.name, digest_of(values))
        run = cls(configuration, store, plan, directory, chosen)
        try:
            lock = run._leases.enter_context((directory / LOCK).open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stage in plan:
                if stage.digest is not None:
                    run._leases.enter_context(store.lease(stage.name, stage.digest))
                for part in stage.parts:
                    run._leases.enter_context(store.lease(DATA, part))
            write_text(directory / "config.yaml", yaml.safe_dump(values, sort_keys=False))
            run._write_plan()
            modules = [module for stage in STAGES.values() for module in stage.modules(configuration)]
            write_json(
                directory / "env.json",
                environment()
                | {
                    "command": command_line(config, overrides, until),
                    "code": digest_of(code_identity(*modules)),
                    "rebuild": chosen.to_json() if chosen.stages else None,
                },
            )
            (directory / "logs").mkdir()
        except OSError as error:
            run.close()
            raise storage_error(error, directory) from error
        except BaseException:
            run.close()
            raise
        if missing:
            run._mirror.start()  # what is all cached was mirrored by the runs that built it
        return run

    @classmethod
    def of(cls, settings: Mapping[str, Any], inputs: Iterable[Pointer] = ()) -> "Run":
        """A started run, to go on with in any process that sees its root; whoever started it keeps the mirror.

        settings: see `settings`. inputs: artifacts that stages read; they are held, see `hold`.

        Raises:
            IntegrityError: an input is gone, or was built again and came out different.
            StorageError: the run's directory cannot be read.
        """
        directory = Path(settings["directory"])
        store = _store(Path(settings["root"]), private=settings["private"])
        try:
            plan = [
                PlannedStage(
                    row["stage"],
                    row["digest"],
                    None,
                    row["verdict"],
                    row["reason"],
                    row["predicted_bytes"],
                    tuple(row["parts"]),
                )
                for row in read_json(directory / PLAN)
            ]
            configuration = Configuration.model_validate(settings["configuration"])
            run = cls(configuration, store, plan, directory, Rebuild.from_json(settings["rebuild"]))
        except OSError as error:
            raise storage_error(error, directory) from error
        try:
            for pointer in inputs:
                name = pointer["stage"]
                run.hold(pointer)  # first: what is found then stays
                artifact = store.find(name, pointer["digest"])
                if artifact is None or artifact.manifest.content != pointer["content"]:
                    raise IntegrityError(
                        "was built again by another process and came out different, or is gone",
                        where=str(store.root / pointer["path"]),
                        fix="run the same command again",
                    )
                run.built[name] = Built(artifact, hit=True, reason="an input")
        except BaseException:
            run.close()
            raise
        return run

    @property
    def settings(self) -> dict[str, Any]:
        """The run as plain data: its root, its directory, its resolved configuration, and what it builds again."""
        return {
            "root": str(self.store.root),
            "directory": str(self.directory),
            "configuration": self.configuration.model_dump(mode="json"),
            "rebuild": self.rebuild.to_json(),
            "private": self.store.remote is None,
        }

    def pointer(self, name: str) -> Pointer:
        """Of a stage that this run has built or found."""
        artifact = self.built[name].artifact
        return {
            "stage": name,
            "digest": artifact.digest,
            "content": artifact.manifest.content,
            "path": str(artifact.path.relative_to(self.store.root)),
        }

    def hold(self, pointer: Pointer) -> Pointer:
        """Keep an artifact from `ups cache gc` until this run is closed, whatever gc is asked to remove; returns its pointer.

        Raises:
            StorageError: the store cannot be written.
        """
        self._leases.enter_context(self.store.lease(pointer["stage"], pointer["digest"]))
        return pointer

    def uses_gpu(self, name: str) -> bool:
        """Whether a stage computes on a GPU; one that only fetches or reads files does not."""
        generates = any(isinstance(data, Generated) for data in self.configuration.problems.values())
        return self.configuration.execution.device == "cuda" and (generates or name != "download")

    def last_step(self, name: str) -> int | None:
        """Of the newest checkpoint of a stage that was interrupted; None if it has none."""
        digest = self.plan[name].digest
        return None if digest is None else last_step(self.store, name, digest)

    def progress(self, name: str) -> int:
        """How far a stage that has not ended would go on: its step, or of a stage without, minus the bytes that it has yet to
        write."""
        digest = self.plan[name].digest
        if STAGES[name].trains or digest is None:
            return self.last_step(name) or 0
        download = self.built["download"].artifact if "download" in self.built else None
        return -remaining_bytes(self.store, name, digest, self.configuration, download)

    def key(self, name: str) -> str:
        """The key of a stage whose inputs are there.

        Raises:
            DataError: an input file is missing.
            StorageError: it cannot be read.
        """
        return digest_of(derive(name, self.configuration, self._inputs(name), self.store))

    def stage(self, name: str, *, on_line: Output, on_progress: Progress | None = None) -> Built:
        """Bring one stage to a sealed artifact; its inputs must have been brought there by this run before.

        on_progress: gets every record of a training as it is written.

        Raises:
            UpsError: see `ups.pipeline.execute.execute`.
        """

        def on_record(record: dict[str, Any]) -> None:
            self._append(name, [record])
            if on_progress is not None:
                on_progress(name, record)

        derivation = self._derive(name)
        built = execute(
            name,
            derivation,
            self.configuration,
            self._inputs(name),
            self.store,
            Listener(on_line, on_record),
            self.directory / "logs" / f"{name}.log",
            self.rebuild,
        )
        self._register(name, built)
        return built

    def adopt(self, name: str) -> Built | None:
        """The artifact of a stage, if it is sealed and may be used; nothing is built.

        Whoever built it: this is what a scheduler asks before it decides that a stage is cached.
        """
        digest = digest_of(self._derive(name))
        alone = self.store.remote is None  # nothing is brought then, and two runs may look at once
        try:
            with nullcontext() if alone else self.store.lock(name, digest, timeout=0):
                artifact, reason = sealed_or_brought(self.store, name, digest, self.rebuild)
        except BusyError:  # somebody is at it, and `stage` will wait
            return None
        if artifact is None:
            return None
        built = Built(artifact, hit=True, reason=reason)
        self._register(name, built)
        return built

    def judge(self, kind: Kind) -> list[Verdict]:
        """Hold what the run's directory says of its trainings, or of its results, against the gates, and write it down."""
        gates, path = self.configuration.gates, self.directory / GATES
        if not getattr(gates, kind):
            return []
        if kind == "validation":
            verdicts = judge_trainings(
                gates, {name: row["summary"] for name, row in self._registered().items()}
            )
        else:
            verdicts = judge_results(gates, read_json(self.directory / "metrics.json"))
        others = [row for row in (read_json(path) if path.exists() else []) if row["kind"] != kind]
        write_json(path, [*others, *(verdict.to_json() for verdict in verdicts)])
        return verdicts

    def report(self, *, on_line: Output) -> Path:
        """Write report.html from what the run's directory holds.

        Raises:
            UpsError: the report's process failed.
        """
        write_report(self.directory, on_line=on_line)
        return self.directory / "report.html"

    def close(self) -> None:
        """End the mirror; it may finish its last records for a few seconds, and no longer.

        From here on `ups cache gc` goes by the pointers of this run alone.
        """
        with self._leases:  # the lock too: `ups sync` does not touch what the mirror is still writing
            self._mirror.close(finished=self._registered().keys() == self.plan.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(StorageError):  # on a full disk: why the run ends is the news
            write_json(self.directory / ENDED, _end(error))
        self.close()

    def _inputs(self, name: str) -> dict[str, Artifact]:
        return {i: self.built[i].artifact for i in STAGES[name].inputs}

    def _derive(self, name: str) -> dict[str, Any]:
        """What the key of a stage is taken of, now that its inputs are there; the plan and gc are told."""
        derivation = derive(name, self.configuration, self._inputs(name), self.store)
        digest = digest_of(derivation)
        planned = self.plan[name]
        if planned.digest != digest:
            self._leases.enter_context(self.store.lease(name, digest))
            self.plan[name] = replace(planned, digest=digest, derivation=derivation)
            self._write_plan()
        return derivation

    def _write_plan(self) -> None:
        write_json(self.directory / PLAN, [stage.to_json() for stage in self.plan.values()])

    def _register(self, name: str, built: Built) -> None:
        """Note a stage's artifact in the run's directory; what a stage trained earlier counts as record."""
        if name == "download":
            require_fit(self.configuration, built.artifact)
        logged = built.artifact.path / "logs" / "metrics.jsonl"
        if built.hit and logged.exists():
            self._append(name, read_records(logged))
        self.built[name] = built
        row = {
            "digest": built.artifact.digest,
            "path": self._relative(built.artifact.path),
            "parts": [
                self._relative(self.store.path(part["stage"], part["digest"]))
                for part in built.artifact.manifest.parts.values()
            ],
            "hit": built.hit,
            "reason": built.reason,
            "seconds": built.artifact.manifest.seconds,
            "seconds_from_scratch": self._seconds_from_scratch(built.artifact),
            "summary": built.artifact.manifest.summary,
        }
        write_json(self.directory / ARTIFACTS, self._registered() | {name: row})
        if name == "evaluate":
            table = read_json(built.artifact.path / "metrics.json")
            write_json(self.directory / "metrics.json", table)
            for file in (OUTSIDE, FITTED_FILE):
                write_json(self.directory / file, read_json(built.artifact.path / file))
            self.judge("test")

    def _seconds_from_scratch(self, artifact: Artifact) -> float:
        """With those of its parts, which another run may have made."""
        parts = sum(part.manifest.seconds for part in self.store.parts(artifact))
        return max(artifact.manifest.seconds, parts)

    def _relative(self, path: Path) -> str:
        """Either may be reached through a symbolic link, and .. is what lies above its target."""
        return os.path.relpath(path.resolve(), self.directory.resolve())

    def _registered(self) -> dict[str, dict[str, Any]]:
        """What artifacts.json holds: stages of this run, whichever process brought them there."""
        path = self.directory / ARTIFACTS
        return read_json(path) if path.exists() else {}

    def _append(self, name: str, records: list[dict[str, Any]]) -> None:
        """Add records to metrics.jsonl, each once: a stage that is tried again tells its first ones again."""
        path = self.directory / METRICS
        try:
            recorded = self._recorded
            with path.open("a") as file:
                for record in ({"stage": name} | record for record in records):
                    if _identity(record) not in recorded:
                        recorded.add(_identity(record))
                        file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise storage_error(error, path) from error

    @cached_property
    def _recorded(self) -> set[tuple[Any, ...]]:
        """What metrics.jsonl holds; a torn last line is cut off, for others will follow it."""
        path = self.directory / METRICS
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        return {_identity(record) for record in read_records(path)}


def overrides_by_seed(config: str | Path, overrides: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The overrides of each run that a configuration's `seeds` asks for.

    Raises:
        ConfigurationError: the configuration is wrong.
    """
    configuration = load_configuration(config, overrides)
    if configuration.seeds == 1:
        return [dict(overrides or {})]
    return [
        dict(overrides or {}) | {"seed": configuration.seed + number, "seeds": 1}
        for number in range(configuration.seeds)
    ]


def run_all(
    run: Run,
    *,
    on_line: Output,
    on_stage: Callable[[str, Built | None], None],
    on_progress: Progress | None = None,
    until: str | None = None,
) -> None:
    """The chain without Prefect: every stage, or one and what it needs.

    on_stage: called with None before a stage and with its result after it. on_progress: see `Run.stage`.

    Raises:
        UpsError: of the first stage that failed.
        GateError: its trainings do not pass their gates, and it was not evaluated; or its results do not pass theirs, and
            all is published.
    """
    with run:
        for name in chain_to(until):
            if name == "evaluate":
                require_passed(run.judge("validation"))
            on_stage(name, None)
            on_stage(name, run.stage(name, on_line=on_line, on_progress=on_progress))
        if "evaluate" in run.built:
            run.report(on_line=on_line)
            require_passed(run.judge("test"))


def write_report(directory: Path, *, on_line: Output) -> None:
    """(Re)write report.html of a run directory.

    Raises:
        ConfigurationError: the directory is no finished run.
        UpsError: the report's process failed.
    """
    if not (directory / "metrics.json").is_file():
        raise ConfigurationError(
            "is not the directory of a finished run (it has no metrics.json)",
            where=str(directory),
            fix="finish the run with `ups run`, or choose another below runs/",
        )
    work = directory / "logs" / "report"
    returncode = launch(
        "ups.report",
        [str(directory), "--work", str(work)],
        work=work,
        processes=None,
        log_file=directory / "logs" / "report.log",
        on_line=on_line,
    )
    classify(returncode, work)


def _end(error: BaseException | None) -> dict[str, Any]:
    """How a run ended, as ended.json says it."""
    if error is None:
        state, code = "finished", EXIT_OK
    elif is_interruption(error) or isinstance(error, ProcessKilled):
        state, code = "interrupted", Interrupted.exit_code
    else:
        state, code = "failed", UpsError.exit_code
    if isinstance(error, UpsError):
        code = error.exit_code
    return {
        "state": state,
        "message": None if error is None else str(error) or type(error).__name__,
        "exit_code": code,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _store(root: Path, *, private: bool) -> Store:
    """One for all stages that a process runs: it verifies each artifact once."""
    return Store(root, remote=None if private else Remote.from_environment())


def _identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """One step has a record of the training and one of the validation, which differ in their names."""
    return record["stage"], record["step"], *record


def bytes_to_write(store: Store, configuration: Configuration, plan: list[PlannedStage]) -> dict[str, int]:
    """Of each stage that is to be built, by prediction less what an earlier launch wrote."""
    download = next((stage for stage in plan if stage.name == "download"), None)
    sealed = None
    if download and download.digest and download.verdict == "HIT":
        sealed = store.find("download", download.digest)
    return {
        stage.name: remaining_bytes(store, stage.name, stage.digest, configuration, sealed)
        if stage.digest is not None
        else stage.predicted_bytes
        for stage in plan
        if stage.verdict == "MISS"
    }


def _make_directory(runs: Path, name: str, digest: str) -> Path:
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, runs) from error
    for _ in range(100):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        directory = runs / f"{stamp}-{name}-{digest[:_DIGITS]}"
        try:
            directory.mkdir()
        except FileExistsError:
            time.sleep(0.1)
            continue
        except OSError as error:
            raise storage_error(error, directory) from error
        return directory
    raise ConfigurationError("could not make a new run directory", where=str(runs))


def command_line(config: str | Path, overrides: Mapping[str, Any] | None, until: str | None) -> str:
    """What does the same without Prefect, in the same place, whoever started it."""
    words = ["ups", "run", str(config)]
    for key, value in (overrides or {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join([*words, *([] if until is None else ["--until", until])])
