"""The tutorial's part that needs a server: `make serve` in one terminal, the other commands in another."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from documents import TUTORIAL, commands
from workplace import Workplace

PORT = "4200"  # Prefect's, which the machine that tests may use
SERVE = "make serve"


def part() -> list[str]:
    """Its commands."""
    lines = TUTORIAL.read_text().splitlines()
    begin = lines.index("## Under Prefect") + 1
    end = next(number for number, line in enumerate(lines, 1) if number > begin and line.startswith("## "))
    return [
        command.text for command in commands(TUTORIAL) if begin < command.line < end and not command.inline
    ]


@contextmanager
def serving(place: Workplace, port: int) -> Iterator[None]:
    """`make serve`, until Ctrl-C."""
    process = subprocess.Popen(
        [*SERVE.split(), f"PREFECT_SERVER_API_PORT={port}"],
        cwd=place.directory, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "are up" in line:
                break
        else:
            pytest.fail("".join(said))
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_the_tutorial_does_under_prefect(workplace: Workplace):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    texts = part()
    assert SERVE in texts
    script = "\n".join(text.replace(PORT, str(port)) for text in texts if text != SERVE)
    with serving(workplace, port):
        printed = workplace.must(f"set -e\n{script}")
    assert "Completed" in printed
    assert {"tutorial", "longer"} <= set(re.findall(r"\b(tutorial|longer)\b", printed))
    (run,) = workplace.directory.glob("runs/*/metrics.json")
    assert run.is_file()
