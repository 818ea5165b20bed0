"""`python -m ups.pipeline.run_hooks REQUEST`: wait for the end of a run, then run its hooks.

Started by `ups.pipeline.finish_hooks`, whose process has the other end of our standard input. The exit code is the number of
hooks that failed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

_STATES = ("finished", "failed", "interrupted")


def main() -> int:
    """Read what the run's process tells until it is gone; who says nothing of its end was killed, which is a failure."""
    request = json.loads(sys.argv[1])
    directory, state, taken = "", "failed", dict[str, str]()
    for line in sys.stdin:
        word, _, value = line.removesuffix("\n").partition(" ")
        if word == "run":
            directory = value
        elif word == "environment":
            with suppress(ValueError):  # a torn word is none
                taken = json.loads(value)
        elif word == "state" and value in _STATES:  # a torn word is none
            state = value
    log_file = Path(directory, "logs", "hooks.log") if directory else Path(request["log"])
    environment = os.environ | taken | {"UPS_RUN": directory, "UPS_STATE": state, "UPS_NAME": request["name"]}
    failed = 0
    for event in (state, "always"):
        if command := request["commands"].get(event):
            try:
                log_file.parent.mkdir(parents=True, exist_ok=True)
                output = log_file.open("ab", buffering=0)
            except OSError:
                # The disk may be what the run failed of, and a machine that is not stopped is worse than no log.
                output = Path(os.devnull).open("ab", buffering=0)  # noqa: SIM115
            with output:
                failed += _run(event, command, environment, request["seconds"], output) != 0
    return failed


def _run(event: str, command: Any, environment: dict[str, str], seconds: float, output: FileIO) -> int | None:
    """The exit code of a command; None where it was ended for its time, or could not be started."""
    words = ["sh", "-c", command] if isinstance(command, str) else command
    begun, code = time.monotonic(), None
    try:
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip
        try:
            code = process.wait(seconds)
            how = f"exit code {code}"
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            how = f"ended, for it took more than {seconds:g} s"
    except OSError as error:
        how = f"could not be started: {error}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk must not keep the next hook from its work
        output.write(f"{now} {event} {words}: {how} after {time.monotonic() - begun:.1f} s\n".encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
