"""One stage at a time on the GPU, of whichever run and deployment."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from ups.errors import PreflightError

LIMIT = "gpu"
"""Name of the server's concurrency limit; `make deploy` creates it."""


@contextmanager
def gpu(*, needed: bool) -> Iterator[None]:
    """Hold a slot of the limit, where a GPU is needed. A limit of 2 lets two stages share the device, or have one each.

    Rejected: a limit on a tag; a tagged task waits for its slot also to find that its stage is sealed. A limit of a
    deployment; it knows nothing of the runs of others.

    Raises:
        PreflightError: the server has no such limit.
    """
    if not needed:
        yield
        return
    try:
        with get_client(sync_client=True) as client:
            found = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        raise PreflightError(
            f"has no concurrency limit {LIMIT!r}, without which two runs would share the GPU",
            where="Prefect server",
            fix="make deploy, or create it with the number of stages that may run at once: "
            f"prefect gcl create {LIMIT} --limit 1; then retry the run",
        ) from None
    if found.active_slots >= found.limit:
        get_run_logger().info("waiting for the GPU: all slots of the concurrency limit %r are taken", LIMIT)
    # A lease that could not be renewed for a moment is no reason to end a training of hours.
    with concurrency(LIMIT, strict=True, raise_on_lease_renewal_failure=False):
        yield
