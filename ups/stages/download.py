"""download: trajectories of every problem of the run, in PDEBench's layout, and their splits."""

import importlib
import json

from ups.artifacts.files import write_text
from ups.data.dataset import DESCRIPTION, trajectory_file
from ups.runtime.request import Request


def run(request: Request) -> None:
    """Generate, copy or fetch the trajectories, each problem by the modules of its source; write `<problem>/trajectories.hdf5` and `splits.json`."""
    configuration = request.configuration
    described = {}
    for name, data in configuration.problems.items():
        target = trajectory_file(request.output, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        described[name] = importlib.import_module(data.source_modules[0]).make(name, data, request, target)
    write_text(request.output / DESCRIPTION, json.dumps(described))
    told = ("problem", "title", "version", "frames", "grid")
    request.finish(
        {
            "problems": {
                name: {key: values[key] for key in told}
                | {"trajectories": {part: len(rows) for part, rows in values["rows"].items()}}
                for name, values in described.items()
            }
        }
    )
