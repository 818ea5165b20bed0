"""The part of the other machines in a run with `execution.nodes`.

They know a stage by its key, as everybody does: with the same configuration, code and root they find the work directory of
the first machine, and there where it waits for them; and in the directories of its runs, how these ended. Nothing else passes between them, so that the first
may be a command, a flow, or either of them started again.
"""

import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ups.artifacts import Store
from ups.artifacts.files import read_json
from ups.config import Configuration
from ups.config.schema import STAGES
from ups.errors import EXIT_OK, ConfigurationError, Interrupted, StageError, UpsError
from ups.pipeline.device import require_machine
from ups.pipeline.execute import launch_stage
from ups.pipeline.plan import PlannedStage, make_plan
from ups.pipeline.run import ENDED, directories_of
from ups.pipeline.supervise.outcome import classify
from ups.pipeline.supervise.rendezvous import RENDEZVOUS_FILE, Rendezvous

_POLL_SECONDS = 1.0


def join(
    configuration: Configuration, store: Store, until: str | None = None, *, on_line: Callable[[str], None]
) -> None:
    """Take part in every stage that runs under torchrun, until all of them are sealed.

    A stage that failed and may succeed when it is tried again is waited for again, until the run on the first machine has failed.

    Args:
        configuration: resolved, the same as on the first machine.
        until: last stage of the run, of those that it needs.

    Raises:
        ConfigurationError: the run has one machine.
        PreflightError: this machine cannot do what is asked for; not all machines came.
        Interrupted: a machine was told to stop, and a checkpoint is written.
        StageError: the run failed on the first machine while it was waited for, for example in its download.
        UpsError: the stage failed, on whichever machine.
    """
    if configuration.execution.nodes == 1:
        raise ConfigurationError(
            "is 1, and there is nothing to join", where="execution.nodes", fix="set it on all machines"
        )
    require_machine(configuration)
    joined: set[str] = set()
    waited_for: str | None = None
    # Of earlier runs: who mends what failed may start the machines in any order. Rejected: the time of the failure; clocks differ.
    known = set(_failures(configuration, store))
    while (stage := _next(configuration, store, until)) is not None:
        key = f"{stage.name} {stage.digest[:12] if stage.digest else stage.reason}"
        rendezvous = _announced(stage, store)
        if rendezvous is None or rendezvous.identity in joined or not rendezvous.listens():
            if key != waited_for:
                on_line(f"waits for {key}")
                waited_for = key
            _require_no_failure(_failures(configuration, store), known)
            time.sleep(_POLL_SECONDS)
            continue
        joined.add(rendezvous.identity)
        on_line(f"joins {key}")
        try:
            _take_part(stage, configuration, store, rendezvous, on_line)
        except UpsError as error:
            if isinstance(error, Interrupted) or not error.retryable:
                raise
            on_line(f"{error}; waits for it to be tried again")


def _failures(configuration: Configuration, store: Store) -> dict[Path, str]:
    """Runs of the same configuration that failed, and why. One that was interrupted or killed is started again.

    Rejected: what a stage left in its work directory, which knows neither of a full disk before it nor of tries that are left.
    """
    found = {}
    for directory in directories_of(store.root, configuration):
        with suppress(FileNotFoundError):  # it goes on, or was killed
            ended = read_json(directory / ENDED)
            if ended["state"] == "failed":
                found[directory] = ended["message"]
    return found


def _require_no_failure(failures: Mapping[Path, str], known: Container[Path]) -> None:
    for directory, message in failures.items():
        if directory not in known:
            raise StageError(
                f"failed on the first machine: {message}",
                where=str(directory),
                fix="mend it there, then start both again",
            )


def _next(configuration: Configuration, store: Store, until: str | None) -> PlannedStage | None:
    """The first stage that is not sealed, of those with ranks."""
    plan = make_plan(configuration, store, until)
    return next((stage for stage in plan if stage.verdict == "MISS" and STAGES[stage.name].parallel), None)


def _announced(stage: PlannedStage, store: Store) -> Rendezvous | None:
    """Where the first machine waits, or waited before it was killed."""
    if stage.digest is None:
        return None
    try:
        values = read_json(store.work(stage.name, stage.digest) / RENDEZVOUS_FILE)
    except FileNotFoundError:
        return None
    return Rendezvous(**values | {"hosts": False})


def _take_part(
    stage: PlannedStage,
    configuration: Configuration,
    store: Store,
    rendezvous: Rendezvous,
    on_line: Callable[[str], None],
) -> None:
    assert stage.digest is not None
    work = store.work(stage.name, stage.digest)
    with TemporaryDirectory(prefix="ups-join-") as own:
        log = Path(own) / "log.txt"
        returncode = launch_stage(work, stage.name, configuration, store, on_line, log, rendezvous)
    if returncode != EXIT_OK:  # else the first machine is sealing, and its work directory goes
        with suppress(FileNotFoundError):  # the first machine begins anew, and has removed what was there
            classify(returncode, work, stage=stage.name)
