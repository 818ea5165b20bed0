"""The process behind `ups bench` and `ups profile`: {"subject", "threads", "directory" (to work in), ...} in, records out."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ups.tools.tool_main import tool_main


def measure(request: dict[str, Any]) -> Any:
    """Measure one subject."""
    if request["subject"] == "data":
        from ups.benchmarks.data import measure_generators

        return measure_generators(
            threads=request["threads"], seconds=request["seconds"], device=request["device"]
        )
    if request["subject"] == "peers":
        from ups.benchmarks.race import measure_peers

        return measure_peers(request)
    if request["subject"] == "ablation":
        from ups.benchmarks.race import measure_ablation

        return measure_ablation(request)
    if request["subject"] == "frontier":
        from ups.benchmarks.frontier import measure_frontier

        return measure_frontier(request)
    with TemporaryDirectory(prefix=".bench-", dir=request["directory"]) as directory:
        if request["subject"] == "train":
            from ups.benchmarks.train import measure_training

            return measure_training(request, Path(directory))
        if request["subject"] == "night":
            from ups.benchmarks.night import measure_night

            return measure_night(request, Path(directory))
        if request["subject"] == "profile":
            from ups.benchmarks.profile import measure_profile

            return measure_profile(request, Path(directory))
        from ups.benchmarks.latents import measure_latents

        return measure_latents(
            Path(directory), threads=request["threads"], trajectories=request["trajectories"]
        )


if __name__ == "__main__":
    sys.exit(tool_main("ups.benchmarks", measure))
