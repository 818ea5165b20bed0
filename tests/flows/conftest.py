"""One server, one worker and one root per session, in temporary directories.

Neither the user's ~/.prefect nor the checkout is written to.
"""

from collections.abc import Iterator

import pytest
from orchestra import Orchestra, asked


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    orchestra = Orchestra(tmp_path_factory.mktemp("orchestra"))
    yield orchestra
    orchestra.stop()
    assert orchestra.errors_in_the_servers_log() == []


@pytest.fixture(scope="session")
def deployed(server: Orchestra) -> Orchestra:
    server.deploy()
    server.start_worker()
    return server


@pytest.fixture(scope="session")
def built(deployed: Orchestra) -> Orchestra:
    """A first run of the tiny configuration: every stage is sealed, and Prefect has its records."""
    arguments = ("deployment", "run", "burgers-upt/demo", "--watch", "--param", f"experiment={asked()}")
    assert "Completed" in deployed.prefect(*arguments)
    return deployed
