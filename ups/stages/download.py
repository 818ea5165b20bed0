"""download: trajectories of every problem of the run, in PDEBench's layout, and their splits."""

import json

from ups.artifacts.files import write_text
from ups.config.data import DataFile, Generated, PublishedData
from ups.data.dataset import DESCRIPTION, trajectory_file
from ups.problems.published import DOWNLOADS
from ups.runtime.request import Request
from ups.stages.copying import copy_file, copy_published
from ups.stages.generation import generate


def run(request: Request) -> None:
    """Generate, copy or fetch the trajectories; write `<problem>/trajectories.hdf5` and `splits.json`."""
    configuration = request.configuration
    execution = configuration.execution
    described = {}
    for name, data in configuration.problems.items():
        target = trajectory_file(request.output, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        match data:
            case Generated():
                described[name] = generate(
                    data,
                    target,
                    request.work / "blocks" / name,
                    device=execution.device,
                    threads=execution.threads,
                )
            case DataFile():
                described[name] = copy_file(name, data, configuration, target, request.root)
            case PublishedData():
                described[name] = copy_published(name, data, configuration, target, request.root / DOWNLOADS)
            case _:
                raise TypeError(f"no source of trajectories for {type(data).__name__}")
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
