"""The standing server: its address, whether it answers, and what runs need of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from tasks.gpu import LIMIT
from ups.errors import PreflightError

POOL = "ups"


def own_address() -> str:
    """Of the server that `deployments.serve` starts, as this machine reaches it, without /api."""
    host = PREFECT_SERVER_API_HOST.value()
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{PREFECT_SERVER_API_PORT.value()}"


def server_url() -> str:
    """Of PREFECT_API_URL, in the environment or the profile, else of our own: never of a temporary one."""
    return PREFECT_API_URL.value() or f"{own_address()}/api"


def no_answer(url: str) -> PreflightError:
    """That a server does not answer."""
    return PreflightError(
        "does not answer", where=f"Prefect server {url}", fix="make serve, or set PREFECT_API_URL to yours"
    )


def answers(url: str) -> bool:
    """Whether a Prefect server does, at this URL of its API."""
    try:
        return httpx.get(f"{url}/health").json() is True
    except (httpx.HTTPError, ValueError):  # nobody, or somebody else
        return False


@contextmanager
def connected(url: str) -> Iterator[SyncPrefectClient]:
    """A client, and the same server for all else that asks for one."""
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        yield client


def prepare(client: SyncPrefectClient) -> list[str]:
    """Create the work pool and the limit of the GPU where they are missing; returns what was created.

    A limit that is there stays as it is: somebody may have given it two slots.
    """
    created = []
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        created.append(f"work pool {POOL!r}")
    except ObjectAlreadyExists:
        pass
    try:
        client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        created.append(f"concurrency limit {LIMIT!r} with one slot")
    return created
