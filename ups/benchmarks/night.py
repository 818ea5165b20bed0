"""The measurements of the nightly benchmark, once each; `ups.pipeline.nightly.suite` says what they are and how large.

All are errors, or times divided by that of something that is no code of ours (a plain training step, a solver in NumPy, a copy out of
`np.memmap`, zarr's reader), measured beside it in this process: what slows the machine slows both.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ups.artifacts.files import read_records
from ups.benchmarks.data import over_reference
from ups.benchmarks.latents import latent_ratios
from ups.benchmarks.plain_step import plain_step_seconds
from ups.benchmarks.race import METRICS, OPERATOR, race_as_configured
from ups.benchmarks.stages import run_stage, short_training
from ups.benchmarks.train import settled_seconds
from ups.config import Configuration
from ups.errors import NotFiniteError

log = logging.getLogger(__name__)

Values = dict[str, float]


def measure_night(request: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Every measurement of some sections, once: {"device": its name, "values": {measurement: value}}.

    request: {"configuration", "download" (an artifact), "sections": {name: its settings}}.

    Raises:
        NotFiniteError: a training or a forecast of it is not finite.
    """
    configuration = Configuration.model_validate(request["configuration"])
    execution = configuration.execution
    torch.set_num_threads(execution.threads)
    values: Values = {}
    for name, settings in request["sections"].items():
        log.info("measuring %s", name)
        found = _SECTIONS[name](configuration, Path(request["download"]), directory / name, settings)
        log.info("%s", ", ".join(f"{what} {value:.4g}" for what, value in found.items()))
        values |= found
    on_gpu = execution.device == "cuda"
    return {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "values": values}


def _accuracy(
    configuration: Configuration, download: Path, directory: Path, settings: Mapping[str, Any]
) -> Values:
    """Relative L2 of full rollouts of the validation split: after the configuration's steps, and at equal seconds over a peer's."""
    trained = run_stage(
        "operator", configuration, directory / "steps", _cached(configuration, download, directory)
    )
    peer = settings["peer"]
    raced = race_as_configured(configuration, download, directory, [peer], settings["seconds"])
    errors = {
        record["model"]: _finite(record[METRICS[0]], record["model"])
        for record in raced
        if record["model"] in {OPERATOR, peer}
    }
    return {
        "operator error": _finite(_last(trained, "validation_relative_l2"), OPERATOR),
        f"operator error over {peer}'s": errors[OPERATOR] / errors[peer],
    }


def _training(
    configuration: Configuration, download: Path, directory: Path, settings: Mapping[str, Any]
) -> Values:
    """Seconds of a step over those of a plain one, which is timed before and after it."""
    inputs = _cached(configuration, download, directory)
    device, steps = torch.device(configuration.execution.device), settings["steps"]
    values, before = {}, plain_step_seconds(steps, device)
    for place, (name, changes) in enumerate(settings["variants"].items()):
        torch.compiler.reset()  # a process may compile one function for so many networks and no more
        changed = short_training(configuration, "operator", steps, changes)
        seconds = settled_seconds(run_stage("operator", changed, directory / str(place), inputs))
        after = plain_step_seconds(steps, device)
        values[name] = 2 * seconds / (before + after)
        before = after
    return values


def _latents(
    configuration: Configuration, download: Path, directory: Path, settings: Mapping[str, Any]
) -> Values:
    del download
    return latent_ratios(directory, threads=configuration.execution.threads, **settings)


def _generators(
    configuration: Configuration, download: Path, directory: Path, settings: Mapping[str, Any]
) -> Values:
    del download, directory
    execution = configuration.execution
    torch.set_num_threads(1)  # one for each block of rows
    try:
        ratios = over_reference(threads=execution.threads, device=execution.device, **settings)
    finally:
        torch.set_num_threads(execution.threads)
    return {f"generator {name}": ratio for name, ratio in ratios.items()}


_SECTIONS: dict[str, Callable[[Configuration, Path, Path, Mapping[str, Any]], Values]] = {
    "accuracy": _accuracy,
    "training": _training,
    "latents": _latents,
    "generators": _generators,
}


def _cached(configuration: Configuration, download: Path, directory: Path) -> dict[str, Path]:
    """What the operator's training reads."""
    data = {"download": download}
    codec = run_stage("autoencoder", configuration, directory / "autoencoder", data)
    both = data | {"autoencoder": codec}
    return data | {"cache_encode": run_stage("cache_encode", configuration, directory / "cache_encode", both)}


def _last(artifact: Path, name: str) -> float | None:
    return [r[name] for r in read_records(artifact / "logs" / "metrics.jsonl") if name in r][-1]


def _finite(error: float | None, model: str) -> float:
    if error is None:
        raise NotFiniteError("a forecast of the validation split is not finite", where=model)
    return error
