"""Progress of a training, in the Prefect UI."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from ups.config.schema import TRAINING_STAGES
from ups.pipeline.run import Progress, Run

SECONDS_BETWEEN_UPDATES = 1.0
"""An update is a request to the server (about 15 ms); a small model does hundreds of steps a second."""
SECONDS_AFTER_A_FAILURE = 60.0


@contextmanager
def shown_progress(run: Run, name: str) -> Iterator[Progress | None]:
    """Show the records of a training as a progress bar of this task run; None for other stages."""
    if name not in TRAINING_STAGES:
        yield None
        return
    of_run = f"{name} of {run.directory.name}"
    series = series_key(run.configuration.name, f"{name}-progress")
    artifact: Any = None  # made with the first record

    def send(record: dict[str, Any]) -> None:
        nonlocal artifact
        # A stage without steps tells its validation alone.
        done = 100 * record["step"] / record["steps"] if record["steps"] else 100.0
        description = f"step {record['step']} of {record['steps']}, {of_run}"
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            if artifact is None:
                artifact = create_progress_artifact(done, key=series, description=description)
            else:
                update_progress_artifact(artifact, progress=done, description=description)

    bar = Throttle(send)
    try:
        yield lambda _stage, record: bar.show(record)
    finally:
        bar.flush()


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
