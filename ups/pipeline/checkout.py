"""The checkout that this library is of: where the runs of deployments start (deployments/prefect.yaml)."""

import os
from pathlib import Path

from ups.errors import PreflightError

CHECKOUT = Path(__file__).resolve().parents[2]


def enter() -> dict[str, str]:
    """Make it the working directory: a step of Prefect's, which is run on the worker's machine; returns what such steps return.

    Rejected: Prefect's step set_working_directory. It goes where the checkout is on the machine that has deployed, and a variable
    of the worker's that is not set would be taken for an empty path, without a word.

    Raises:
        PreflightError: there is the library alone, and no flows beside it.
    """
    if not (CHECKOUT / "flows").is_dir():
        raise PreflightError(
            "has no flows: this library is installed without its checkout",
            where=str(CHECKOUT),
            fix="start the worker in the environment of a checkout: make setup, or pip install -e .",
        )
    os.chdir(CHECKOUT)
    return {"directory": str(CHECKOUT)}
