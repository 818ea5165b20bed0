"""When a transfer is tried again, and when it ends: one policy and one deadline for all of its requests."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import tenacity
from tenacity import stop_after_attempt, stop_before_delay, wait_exception, wait_exponential_jitter

from ups.errors import StorageError
from ups.transfer.address import ANOTHER_MIRROR

log = logging.getLogger(__name__)


class TransientError(Exception):
    """A failure that may be gone at the next attempt; `retry_after`: seconds that the server asks for."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """How long, and how often, one transfer is tried.

    Attributes:
        deadline_seconds: for everything, waiting for another process included.
        attempts: failures in a row, none of which got further than before.
        inactivity_seconds: without an answer, or without another byte of its body, until an attempt fails.
        backoff_seconds: pause after the first failure in a row; doubles with each, up to 64 times. As much is
            added at random, so that many clients do not come back together.
    """

    deadline_seconds: float = 6 * 3600.0
    attempts: int = 8
    inactivity_seconds: float = 60.0
    backoff_seconds: float = 1.0


DEFAULT = RetryPolicy()


class Deadline:
    """The end of one transfer, counted from now."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._ends = time.monotonic() + policy.deadline_seconds

    def remaining(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self._ends - time.monotonic())


def retry(receive: Callable[[], None], received: Callable[[], int], deadline: Deadline, where: str) -> None:
    """Call `receive` until it returns.

    Only failures in a row count that got no further: a server that cuts an 8 GB transfer twenty times still serves
    the file.

    Args:
        receive: one attempt; goes on from where the last one ended.
        received: bytes so far.

    Raises:
        StorageError: the attempts are used up, or the next one would be after the deadline.
    """
    policy, pause = deadline.policy, deadline.policy.backoff_seconds

    def warn(state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        log.warning("%s: %s; trying again in %.1f s", where, error, state.upcoming_sleep)

    def give_up(state: tenacity.RetryCallState) -> NoReturn:
        error = state.outcome and state.outcome.exception()
        raise StorageError(
            f"{error} (failed {state.attempt_number} times in a row; the deadline of "
            f"{policy.deadline_seconds:g} s is in {deadline.remaining():.0f} s)",
            where=where,
            fix=f"run the same command again later, it goes on from what has arrived; or {ANOTHER_MIRROR}",
        ) from error

    while True:
        farthest = received()
        row = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error, farthest=farthest: isinstance(error, TransientError) and received() <= farthest
            ),
            wait=wait_exponential_jitter(multiplier=pause, max=64 * pause, jitter=pause)
            + wait_exception(lambda error: getattr(error, "retry_after", 0.0)),
            stop=stop_after_attempt(policy.attempts) | stop_before_delay(deadline.remaining()),
            before_sleep=warn,
            retry_error_callback=give_up,
        )
        try:
            return row(receive)
        except TransientError as error:
            log.warning("%s: %s; going on from byte %d", where, error, received())
            time.sleep(min(pause, deadline.remaining()))
