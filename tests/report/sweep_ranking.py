"""A ranking as `ups.pipeline.sweeps.sweep` gives it, with numbers that are known."""

import math
from typing import Any

RATE, KIND = "training.operator.learning_rate", "model.operator.kind"


def row(
    name: str, rate: str, kind: str, error: float | None, *, step: int = 1000, **changes: Any
) -> dict[str, Any]:
    """One configuration, with a curve that comes down to its error."""
    steps = range(100, step + 1, 100)
    curve = (
        []
        if error is None
        else [[at, error * (1 + 2 * math.exp(-at / 250)) / (1 + 2 * math.exp(-step / 250))] for at in steps]
    )
    return {
        "name": name,
        "varied": {RATE: rate, KIND: kind},
        "state": "trained" if step == 1000 else "stopped",
        "seeds": 1,
        "error": error,
        "half_width": None,
        "step": step,
        "steps": 1000,
        "seconds": 0.12 * step,
        "cost_usd": None,
        "test": {},
        "reports": [],
        "command": f"ups run configs/some.yaml --set {RATE}={rate}",
        "message": "" if step == 1000 else f"above the median of the others at step {step}",
        "curves": [curve],
    } | changes


def request(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What the report of a sweep is made of."""
    return {
        "name": "some",
        "sweep": "some-0123456789ab",
        "stage": "operator",
        "base": "configs/some.yaml",
        "keys": [RATE, KIND],
        "seeds": 1,
        "finalists": 1,
        "stop": {"median": {"begin": 1, "others": 3}},
        "rows": rows,
    } | changes


ROWS = [
    row("a", "0.002", "ffno", 0.021, state="finished", test={"burgers1d": [0.0234, 0.0021]}, reports=["/r/report.html"]),
    row("b", "0.004", "ffno", 0.0225),
    row("c", "0.002", "unet", 0.0302),
    row("d", "0.001", "ffno", 0.0333),
    row("e", "0.001", "unet", 0.041),
    row("f", "0.004", "unet", 0.09, step=400),
    row("g", "0.0005", "ffno", 0.11, step=300),
    row("h", "0.0005", "unet", None, step=0, state="diverged", message="loss is not finite at step 12"),
]  # fmt: skip
