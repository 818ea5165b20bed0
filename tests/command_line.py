"""The command line as a user meets it: a process with an exit code and two streams."""

import os
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TINY = CONFIGS / "burgers_tiny.yaml"


def ups(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ups` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ups", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**clean_environment(), **environment},
    )


def start_ups(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start `ups`; both streams go into one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "ups", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**clean_environment(), **environment},
    )


def clean_environment() -> dict[str, str]:
    """The environment without what would change the commands, and one thread: the tests share cores."""
    dropped = {
        "UPS_ROOT",
        "COLUMNS",
        "TORCHINDUCTOR_CACHE_DIR",
    }  # the last one is set by torch where a test compiles
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
