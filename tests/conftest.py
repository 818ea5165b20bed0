"""Fixtures shared by all tests."""

import os
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from command_line import TINY, ups

# Tests in several processes get the width of the terminal that they were started in; tables would follow it.
os.environ.pop("COLUMNS", None)


# A shell's job in the background ignores SIGINT, and so would all that the tests start (`nohup make test &`).
signal.signal(signal.SIGINT, signal.default_int_handler)


_BUILD_A_RUN = {"finished_root", "deployed", "built"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever needs a whole run or a server waits for it."""
    for item in items:
        if _BUILD_A_RUN & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where what a test needs is to be had, a skip is a failure: of reasons with words of UPS_NO_SKIP ("strace, openssl")."""
    report = yield
    words = [word.strip() for word in os.environ.get("UPS_NO_SKIP", "").split(",") if word.strip()]
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if any(word in reason for word in words):
            report.outcome, report.longrepr = "failed", f"must not be skipped here: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What repetitions have noted with `record_property`: counts are added up, of seconds the longest is shown."""
    counted, longest = Counter[str](), dict[str, float]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == "counted":
                        counted.update(value)
                    else:
                        longest[name] = max(value, longest.get(name, 0.0))
    for name, count in counted.items():
        terminalreporter.write_line(f"{count:6d}  {name}")
    for name, seconds in longest.items():
        terminalreporter.write_line(f"{seconds:6.1f}  {name}, at most")


@pytest.fixture(scope="session")
def genuine_data() -> Path:
    """The folder of genuine PDEBench rows: UPS_GENUINE_DATA, else `shared/data` beside the checkout.

    Skips where there is none: the rows are not part of the project. A folder that was named and is not there
    is a mistake, hence a failure.
    """
    named = os.environ.get("UPS_GENUINE_DATA")
    if named is not None:
        assert Path(named).is_dir(), f"UPS_GENUINE_DATA={named} is not a directory"
        return Path(named)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not beside.is_dir():
        pytest.skip(f"no genuine PDEBench rows: UPS_GENUINE_DATA is not set and {beside} does not exist")
    return beside


@pytest.fixture(scope="session")
def finished_root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, directory of its one run): the whole chain of configs/burgers_tiny.yaml, built once per session.

    Read it, but change nothing in it: copy it first (`shutil.copytree`).
    """
    root = tmp_path_factory.mktemp("finished") / "root"
    done = ups("run", TINY, "--root", root, "--set", "tracking.wandb=disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (root / "runs").iterdir()
    return root, run
