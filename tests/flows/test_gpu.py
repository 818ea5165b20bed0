"""The limit of the GPU, on a real server and without a GPU."""

import threading
from contextlib import suppress

import pytest
from httpx import HTTPStatusError
from orchestra import Orchestra
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.__main__ import limit_the_temporary_server
from flows.experiment import Experiment
from tasks.gpu import LIMIT, gpu
from ups.artifacts import Store
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.errors import PreflightError
from ups.pipeline.run import Run

CREATE = f"gcl create {LIMIT} --limit 1"


@pytest.fixture
def on_the_server(server: Orchestra):
    with temporary_settings({PREFECT_API_URL: server.url}), disable_run_logger():
        yield server


@pytest.mark.slow
def test_a_limit_that_is_missing_is_named_with_the_command_that_creates_it(on_the_server: Orchestra):
    with suppress(HTTPStatusError):  # there is none, where nothing was deployed before
        on_the_server.api("DELETE", f"/v2/concurrency_limits/{LIMIT}")
    with pytest.raises(PreflightError, match=f"prefect {CREATE}"), gpu(needed=True):
        pytest.fail("came in")
    with gpu(needed=False):
        pass

    on_the_server.prefect(*CREATE.split())
    order: list[str] = []
    second_waits = threading.Event()

    def second() -> None:
        with temporary_settings({PREFECT_API_URL: on_the_server.url}), disable_run_logger():
            second_waits.set()
            with gpu(needed=True):
                order.append("second")

    with gpu(needed=True):
        thread = threading.Thread(target=second)
        thread.start()
        second_waits.wait()
        # A second in which the other could come in, but for the limit.
        thread.join(1.0)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.slow
def test_a_temporary_server_gets_a_limit_with_a_free_slot(on_the_server: Orchestra):
    """Though a run that was killed may have left its slot taken."""
    limit_the_temporary_server()
    with gpu(needed=True):
        limit_the_temporary_server()
        with gpu(needed=True):
            pass


PUBLISHED = {
    "source": "pdebench",
    "dataset": "1D_Burgers_Sols_Nu0.01",
    "space_stride": 8,
    "time_stride": 5,
    "rows": {"test": [0, 64], "train": [1000, 1200]},
}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"execution.device": "cpu"}, set()),
        ({"execution.device": "cuda"}, set(STAGES)),
        (
            {"execution.device": "cuda", "data": PUBLISHED, "evaluation.outside": None},
            set(STAGES) - {"download"},
        ),
    ],
    ids=["cpu", "generated on cuda", "published"],
)
def test_what_runs_on_a_gpu(tmp_path, overrides, expected):
    configuration = load_configuration(Experiment(config="burgers_demo").path, overrides)
    run = Run(configuration, Store(tmp_path), [], tmp_path)
    assert {name for name in STAGES if run.uses_gpu(name)} == expected
