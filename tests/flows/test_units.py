"""The systemd units and the container file, as far as they can be tried without root and without a container engine."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from orchestra import CHECKOUT

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
    assert {"flows", "tasks", "ups", "configs", "deployments", "Makefile", "constraints.txt"} <= copied
    missing = [name for name in copied if not (CHECKOUT / name).exists()]
    assert not missing
