"""The systemd units and the container file, as far as they can be tried without root and without a container engine."""

import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import PurePath

import pytest
from orchestra import CHECKOUT

from ups.pipeline.comparison import COMPARISONS
from ups.pipeline.finish_hooks import HOOKS_LOG
from ups.pipeline.leaderboard import LEADERBOARD
from ups.pipeline.nightly.night import default_history
from ups.pipeline.nightly.suite import FULL
from ups.pipeline.run import RUNS
from ups.pipeline.sweeps.sweep import JOURNAL, SWEEPS

DEPLOYMENTS = CHECKOUT / "deployments"
UNITS = sorted(DEPLOYMENTS.glob("*.service"))
INSTALLED = "/opt/ups"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path):
    assert UNITS
    for unit in UNITS:
        text = unit.read_text().replace(f"{INSTALLED}/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text.replace(INSTALLED, str(CHECKOUT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit.name for unit in UNITS)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "", "it warns, and ends with 0"


def test_what_units_and_container_start_exists():
    commands = [
        shlex.split(line.removeprefix("ExecStart="))
        for unit in UNITS
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    ]
    container = (DEPLOYMENTS / "Containerfile").read_text()
    commands.append(re.findall(r'"([^"]+)"', container.splitlines()[-1]))
    for python, option, module, *_ in commands:
        assert python in {"python", f"{INSTALLED}/.venv/bin/python"}
        assert option == "-m"
        assert find_spec(f"{module}.__main__" if module == "prefect" else module) is not None


def test_the_container_has_what_the_flows_need():
    lines = (DEPLOYMENTS / "Containerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert {".", "ups", "Makefile", "constraints.txt"} <= copied
    missing = [name for name in copied if not (CHECKOUT / name).exists()]
    assert not missing


def test_the_container_has_all_that_git_has():
    """Else each of its runs would say that there are uncommitted changes."""
    lines = (CHECKOUT / ".containerignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    files = [PurePath(file) for file in git("ls-files").splitlines()]
    assert PurePath(".gitignore") in files
    for pattern in ignored:
        everywhere = pattern.removeprefix("**/")
        # Without **/ a pattern is about the root of the checkout alone.
        parts = [file.parts if everywhere != pattern else file.parts[:1] for file in files]
        assert not [part for each in parts for part in each if fnmatch(part, everywhere)], pattern


def test_git_does_not_see_what_is_made_in_a_checkout_that_is_the_root():
    made = [
        f"{RUNS}/a/config.yaml",
        "artifacts/a/manifest.json",
        "downloads/a",
        f"{COMPARISONS}/a",
        f"{SWEEPS}/a/{JOURNAL}",
    ]
    made += [LEADERBOARD, f".{LEADERBOARD}.lock", HOOKS_LOG, ".probe-a/b"]
    made.append(str(default_history(FULL, CHECKOUT).relative_to(CHECKOUT)))
    seen = set(made) - set(git("check-ignore", *made).splitlines())
    assert not seen


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout
