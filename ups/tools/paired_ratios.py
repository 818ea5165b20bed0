"""Ratios of means of the same trajectories, with their intervals: `python -m ups.tools.paired_ratios --work DIR`.

DIR/request.json: {"pairs": [[values, reference], ...]}.
"""

import math
import sys
from typing import Any

import torch

from ups.evaluation.metrics import paired_ratio
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> list[list[float | None]]:
    """Of each pair the ratio and the ends of its interval; null where they are not finite."""
    found = (
        paired_ratio(torch.tensor(values), torch.tensor(reference)) for values, reference in request["pairs"]
    )
    return [[number if math.isfinite(number) else None for number in ratio] for ratio in found]


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.paired_ratios", answer))
