"""Universal Physics Stack: from PDE data to an evaluated, calibrated, re-usable neural surrogate."""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`ups.load`, found when it is asked for: all modules import this one, and would depend on all that it imports.

    Checkers find it in `__init__.pyi`.
    """
    if name == "load":
        return importlib.import_module("ups.evaluation.predictor").load
    raise AttributeError(f"module 'ups' has no attribute {name!r}")
