"""A stand-in for a flow: launches the stage's stand-in and writes how that ended.

`python -m parent BEHAVIOUR WORK PROCESSES GRACE MARKER`, where PROCESSES is 0 for a plain process.
"""

import json
import sys
from pathlib import Path

from ups.errors import UpsError
from ups.pipeline.supervise.launch import launch
from ups.pipeline.supervise.outcome import classify


def main() -> None:
    behaviour, work, processes, grace, marker = sys.argv[1:]
    directory = Path(work)
    returncode = launch(
        "stage",
        [behaviour, work],
        work=directory,
        processes=int(processes) or None,
        log_file=directory / "log.txt",
        on_line=lambda line: None,
        environment={"OMP_NUM_THREADS": "1", "UPS_TEST_MARKER": marker},
        grace_seconds=float(grace),
    )
    try:
        classify(returncode, directory)
    except UpsError as error:
        verdict = {"returncode": returncode, "kind": type(error).__name__, "text": str(error)}
        (directory / "verdict.json").write_text(json.dumps(verdict))


if __name__ == "__main__":
    main()
