"""Score the networks of a finished run on any file in PDEBench's layout.

No stage of the chain: it seals nothing. `python -m ups.stages.score_file --work DIR` reads DIR/request.json
{"configuration", "inputs" (artifact directories by stage), "file", "rows"} and ends with DIR/outcome.json,
whose summary has the records.
"""

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ups.artifacts.files import write_json
from ups.config import Configuration
from ups.data.dataset import conditioning_scalars, load_dataset
from ups.data.pdebench import PDEBenchFile, inspect, read_trajectories
from ups.errors import DataError
from ups.evaluation.score import Setting, records
from ups.inference.surrogate import load_surrogate
from ups.runtime.ranks import device_name, join_ranks
from ups.stages.scoring import score_all

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Strides:
    """How a file is thinned to a model's grid and time step."""

    space: int
    time: int


def main() -> int:
    """Score and write the records."""
    parser = argparse.ArgumentParser(prog="python -m ups.stages.score_file", description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    request = json.loads((work / "request.json").read_text())
    configuration = Configuration.model_validate(request["configuration"])
    inputs = {stage: Path(path) for stage, path in request["inputs"].items()}
    table = score_file(configuration, inputs, Path(request["file"]), rows=request["rows"])
    write_json(work / "outcome.json", {"summary": {"records": table}})
    return 0


def score_file(configuration: Configuration, inputs: dict[str, Path], path: Path, *, rows: int) -> list[dict]:
    """Records of all models on the first `rows` trajectories of a file (all, if it has fewer).

    Raises:
        DataError: the file is malformed, or its grid or frames do not contain the model's.
    """
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        trained = load_dataset(inputs["download"], ("validation",))
        described = inspect(path)
        step = float(trained.times[1] - trained.times[0])
        if min(described.parameters.values()) <= 0:
            raise DataError(
                f"has {described.parameters}, and the models are conditioned on its logarithm",
                where=str(path),
                fix="give a file with a positive parameter",
            )
        strides = find_strides(described, resolution=trained.grid[0], time_step=step)
        if described.parameters != trained.parameters:
            log.warning(
                "%s has %s, the model was trained on %s: this measures extrapolation",
                path, described.parameters, trained.parameters,
            )  # fmt: skip
        kept = (described.frames - 1) // strides.time + 1
        read = read_trajectories(
            path,
            np.arange(min(rows, described.rows)),
            space_stride=strides.space,
            time_stride=strides.time,
            frames=kept,
        )
        truth: Tensor = torch.from_numpy(read.fields[..., None]).to(ranks.device)
        surrogate = load_surrogate(inputs, configuration)
        results = score_all(
            surrogate.codec,
            surrogate.forecasters,
            truth,
            torch.tensor(conditioning_scalars(step, read.parameters), device=ranks.device),
            batch_size=configuration.evaluation.batch_size,
            seed=configuration.evaluation.seed,
        )
        setting = Setting(
            dataset=f"{path.name} ({described.problem})",
            version=described.data_version,
            split="file",
            seed=configuration.seed,
            resolution=trained.grid,
            frames=truth.shape[1],
            device=device_name(ranks.device),
            threads=configuration.execution.threads,
        )
    return [record for result in results for record in records(result, setting)]


def find_strides(described: PDEBenchFile, *, resolution: int, time_step: float) -> Strides:
    """Strides from a file's grid and frames to a model's.

    Raises:
        DataError: the model's grid or time step is not among the file's.
    """
    if described.resolution % resolution:
        raise DataError(
            f"has {described.resolution} grid points, and the model's grid of {resolution} is not among them",
            where=str(described.path),
            fix=f"give a file whose resolution is a multiple of {resolution}",
        )
    interval = float(described.times[1] - described.times[0])
    stride = round(time_step / interval)
    if stride < 1 or abs(stride * interval - time_step) > 1e-4 * time_step:
        raise DataError(
            f"has frames every {interval:g}, and the model's step of {time_step:g} is no multiple of that",
            where=str(described.path),
            fix="give a file whose frame interval divides the model's time step",
        )
    if described.frames <= stride:
        raise DataError(
            f"has {described.frames} frames, too few for one step of {stride} frames",
            where=str(described.path),
        )
    return Strides(described.resolution // resolution, stride)


if __name__ == "__main__":
    sys.exit(main())
