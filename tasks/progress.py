"""Progress of a training, in the Prefect UI."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from ups.config.schema import TRAINING_STAGES
from ups.pipeline.run import Progress, Run

SECONDS_BETWEEN_UPDATES = 1.0
"""An update is a request to the server (about 15 ms); a small model does hundreds of steps a second."""
SECONDS_AFTER_A_FAILURE = 60.0
_SHOWN = {
    "loss": "loss",
    "validation_relative_l2": "validation relative L2",
    "validation_loss": "validation loss",
}


@contextmanager
def shown_progress(run: Run, name: str) -> Iterator[Progress | None]:
    """Show the records of a training as one progress bar, whatever tries the flow run needs; None for other stages."""
    if name not in TRAINING_STAGES:
        yield None
        return
    series = series_key(run.configuration.name, f"{name}-progress")
    told: dict[str, Any] = {}
    artifact: UUID | None = None  # found or made with the first record

    def send(record: dict[str, Any]) -> None:
        nonlocal artifact
        # A stage without steps tells its validation alone.
        done = 100 * record["step"] / record["steps"] if record["steps"] else 100.0
        description = progress_text(name, run, record)
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            artifact = artifact or _of_an_earlier_try(series, _subject(name, run))
            if artifact is None:
                artifact = cast(UUID, create_progress_artifact(done, key=series, description=description))
            else:
                update_progress_artifact(artifact, progress=done, description=description)

    def show(_stage: str, record: dict[str, Any]) -> None:
        told.update(record)  # losses and validation errors come in different records
        bar.show(dict(told))

    bar = Throttle(send)
    try:
        yield show
    finally:
        bar.flush()


def progress_text(name: str, run: Run, told: dict[str, Any]) -> str:
    """What a progress bar is of, and how it goes."""
    parts = [f"{_subject(name, run)} step {told['step']} of {told['steps']}"]
    parts += [f"{words} {told[key]:.3g}" for key, words in _SHOWN.items() if told.get(key) is not None]
    return f"{', '.join(parts)}. Run {run.directory.name}"


def _subject(name: str, run: Run) -> str:
    return f"{name} of {run.configuration.name}, seed {run.configuration.seed}:"


def _of_an_earlier_try(series: str, subject: str) -> UUID | None:
    """The progress bar that an earlier try, or an earlier attempt at the flow run, has made."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=[series]),
                flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run.get_id())]),
            )
        )
    return next((each.id for each in found if (each.description or "").startswith(subject)), None)


def series_key(configuration: str, what: str) -> str:
    """Names one series of artifacts: those of the configuration of a name, run after run."""
    return f"{configuration}-{what}".replace("_", "-").lower()


class Throttle:
    """Sends a record at most once in a while, but always the last one.

    Whatever is wrong with the display costs the display and not the training: a failed update is logged and not
    repeated, and the next one waits, because a try can hold up the reading of the stage's output for a while.
    """

    def __init__(
        self, send: Callable[[dict[str, Any]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._clock = clock
        self._next = -float("inf")
        self._pending: dict[str, Any] | None = None

    def show(self, record: dict[str, Any]) -> None:
        self._pending = record
        if self._clock() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Send the last record if it has not been sent."""
        record, self._pending = self._pending, None
        if record is None:
            return
        pause = SECONDS_BETWEEN_UPDATES
        try:
            self._send(record)
        except Exception as error:  # of the server, its client, or what it makes of our numbers
            pause = SECONDS_AFTER_A_FAILURE
            get_run_logger().warning("progress is not shown (the stage goes on): %r", error)
        self._next = self._clock() + pause
