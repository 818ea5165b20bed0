"""A bare machine becomes a worker, and stops itself when it has nothing to do; its programs are stand-ins."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[2] / "deployments" / "bootstrap.sh"
WORKER = 'trap "echo stopped >> $LOG; exit 0" INT TERM; {work} while true; do read -t 0.2 < /dev/zero; done'


@pytest.fixture
def machine(tmp_path):
    """Starts the script in a checkout with stand-ins; {name: shell program}."""

    def start(**programs: str) -> subprocess.Popen[str]:
        checkout = tmp_path / "checkout"
        (checkout / "deployments").mkdir(parents=True)
        shutil.copy(BOOTSTRAP, checkout / "deployments")
        (checkout / ".venv" / "bin").mkdir(parents=True)
        (checkout / ".venv" / "bin" / "activate").write_text("")
        (tmp_path / "bin").mkdir()
        for name in ("make", "ups", "python"):
            program = tmp_path / "bin" / name
            program.write_text(f'#!/bin/bash\necho {name} "$@" >> $LOG\n{programs.get(name, "")}\n')
            program.chmod(0o755)
        return subprocess.Popen(
            ["bash", checkout / "deployments" / "bootstrap.sh"],
            env={
                "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "LOG": str(tmp_path / "log"),
                "PREFECT_API_URL": "https://prefect.example.com/api",
                "UPS_WORKER": "ups-1",
                "UPS_IDLE_MINUTES": "0.05",
                "UPS_STOP": 'echo "stop the machine" >> $LOG',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


@pytest.mark.slow
def test_it_works_as_long_as_there_is_something_to_do(machine, tmp_path):
    begun = time.monotonic()
    process = machine(python=WORKER.format(work="(sleep 6; true) > /dev/null 2>&1 &"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert time.monotonic() - begun > 6, "a flow run was a child of Prefect's worker for so long"
    root = tmp_path / "ups-root"
    assert lines(tmp_path) == [
        "make setup",
        f"ups doctor --root {root}",
        "python -m deployments.worker --name ups-1",
        "stopped",
        "stop the machine",
    ]


@pytest.mark.parametrize("program", ["make", "ups"])
def test_a_machine_that_is_of_no_use_is_stopped(machine, tmp_path, program):
    process = machine(**{program: "exit 3"})
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert lines(tmp_path)[-1] == "stop the machine"
    assert not any(line.startswith("python") for line in lines(tmp_path))


@pytest.mark.slow
def test_its_end_is_the_workers_end(machine, tmp_path):
    process = machine(python=WORKER.format(work="sleep 30 > /dev/null 2>&1 &"))
    gives_up_at = time.monotonic() + 30
    while not (tmp_path / "log").exists() or "python" not in (tmp_path / "log").read_text():
        assert time.monotonic() < gives_up_at
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert lines(tmp_path)[-2:] == ["stopped", "stop the machine"]
