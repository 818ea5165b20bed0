"""How long a download goes on: its deadline, its attempts, and the pauses between them.

What may be gone at the next attempt is a `Fault`; what would be the same again is an error of `ups.errors`.
Only failures in a row count that got no further: a server that cuts an 8 GB transfer twenty times still serves
the file.

Rejected: tenacity (it knows neither Retry-After, nor a deadline, nor what counts as progress).
"""

import logging
import random
import time
from dataclasses import dataclass

from ups.errors import StorageError
from ups.transfer.address import ANOTHER_MIRROR

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 64  # times the first one


class Fault(Exception):
    """A failure that may be gone at the next attempt; `retry_after`: seconds that the server asks for."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Pace:
    """What is too slow, and how long to pause.

    Attributes:
        inactivity_seconds: without a byte of the body, or without a connection, until an attempt is given up.
        minimum_speed: bytes per second, averaged over `window_seconds`, below which an attempt is given up.
            What has arrived is kept: a reconnection often gets the old speed back.
        window_seconds: of that average.
        backoff_seconds: pause after the first failure in a row; doubles with each, up to 64 times, and is
            spread by half of it so that many clients do not come back together.
    """

    inactivity_seconds: float = 60.0
    minimum_speed: float = 10_000.0
    window_seconds: float = 30.0
    backoff_seconds: float = 1.0


PACE = Pace()


class Patience:
    """How long, and how often in a row without getting further, one piece of work is tried."""

    def __init__(self, *, deadline_seconds: float, attempts: int, pace: Pace) -> None:
        if not deadline_seconds > 0 or attempts < 1:
            raise ValueError(f"deadline and attempts must be positive, got {deadline_seconds}, {attempts}")
        self.deadline_seconds = deadline_seconds
        self.attempts = attempts
        self.pace = pace
        self._ends = time.monotonic() + deadline_seconds
        self._failures = 0

    def remaining(self) -> float:
        """Seconds until the deadline, not below 0."""
        return max(0.0, self._ends - time.monotonic())

    def check(self, where: str, last: object = "it is not finished") -> None:
        """Raises StorageError once the deadline has passed."""
        if self.remaining() <= 0:
            raise StorageError(
                f"{last}, and the deadline of {self.deadline_seconds:g} s has passed",
                where=where,
                fix="run the same command again, it goes on from what has arrived; or raise the deadline",
            )

    def progressed(self) -> None:
        """The work got further than ever: failures before this one do not count any more."""
        self._failures = 0

    def wait(self, fault: Fault, where: str) -> None:
        """Pause before the next attempt.

        Raises:
            StorageError: the attempts are used up, or the pause would last beyond the deadline.
        """
        self._failures += 1
        if self._failures >= self.attempts:
            raise StorageError(
                f"{fault} (failed {self._failures} times in a row)",
                where=where,
                fix=f"run the same command again later, it goes on from what has arrived; or {ANOTHER_MIRROR}",
            ) from fault
        doubled = min(2 ** (self._failures - 1), _LONGEST_PAUSE)
        pause = max(self.pace.backoff_seconds * doubled * random.uniform(0.5, 1.5), fault.retry_after)
        if pause >= self.remaining():
            raise StorageError(
                f"{fault}, and the next attempt in {pause:.0f} s would be after the deadline of "
                f"{self.deadline_seconds:g} s",
                where=where,
                fix="run the same command again later, it goes on from what has arrived; or raise the deadline",
            ) from fault
        log.warning("%s: %s; trying again in %.1f s", where, fault, pause)
        time.sleep(pause)
