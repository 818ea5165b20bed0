"""Fixtures shared by all tests."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, ups
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from ups.commands.main import main

# Tests in several processes get the width of the terminal that they were started in; tables would follow it.
os.environ.pop("COLUMNS", None)


# A shell's job in the background ignores SIGINT, and so would all that the tests start (`nohup make test &`).
signal.signal(signal.SIGINT, signal.default_int_handler)


_BUILD_A_RUN = {"finished_root", "deployed", "built"}
_FLOWS = "tests/flows/"


class _Scheduling(LoadFileScheduling):
    """A file's tests stay in one process, and so do those of all files of flows: they share a server and what it has run."""

    def _split_scope(self, nodeid: str) -> str:
        return _FLOWS if nodeid.startswith(_FLOWS) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever needs a whole run or a server waits for it. What takes long comes first, so that no process is left with it
    when the others have ended."""
    for item in items:
        if _BUILD_A_RUN & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(_FLOWS), item.path not in slow))


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
    """(root, directory of its one run): the whole chain of configs/burgers_tiny.yaml, built once for all processes.

    Read it, but change nothing in it: copy it first (`shutil.copytree`).
    """
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            building = root.with_name("being built")
            done = ups("run", TINY, "--root", building, "--set", "tracking.wandb=disabled")
            assert done.returncode == 0, done.stdout + done.stderr
            building.rename(root)
    (run,) = (root / "runs").iterdir()
    return root, run


@pytest.fixture
def sealed_root(finished_root: tuple[Path, Path], tmp_path: Path) -> Path:
    """A root of one's own, in which the tiny chain is sealed and nothing has run: what a test is not about is not built."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0] / "artifacts", root / "artifacts")
    return root


@pytest.fixture
def answer(capsys):
    """Run a command in this process, which saves the start of another: exit code, output, errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
