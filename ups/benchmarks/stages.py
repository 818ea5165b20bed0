"""Stages in this one process, one after the other, without the pipeline around them."""

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import OUTCOME_FILE
from ups.config import Configuration
from ups.config.load import validate
from ups.models.build import MODEL_FILE
from ups.runtime.request import Request
from ups.stages import autoencoder, cache_encode, consistency, diffusion, operator

_STAGES = {
    "autoencoder": autoencoder.run,
    "cache_encode": cache_encode.run,
    "operator": operator.run,
    "diffusion": diffusion.run,
    "consistency": consistency.run,
}
WINDOWS = 4
"""Of a short training, each with a record of how long its steps took."""


def run_stage(name: str, configuration: Configuration, work: Path, inputs: dict[str, Path]) -> Path:
    """Run a stage, unless it has been; the directory of what it wrote."""
    output = work / "output"
    if not (work / OUTCOME_FILE).exists():
        work.mkdir(parents=True, exist_ok=True)
        contents = {stage: stage for stage in inputs}
        if "autoencoder" in inputs:  # latents of two codecs are unrelated: each has a name
            contents["autoencoder"] = file_checksums(inputs["autoencoder"] / MODEL_FILE).sha256
        request = Request(
            work=work,
            root=work,
            stage=name,
            digest="",
            configuration=configuration,
            inputs=inputs,
            contents=contents,
        )
        _STAGES[name](request)
    return output


def short_training(
    configuration: Configuration, stage: str, steps: int, changes: Mapping[str, Any]
) -> Configuration:
    """A configuration with few steps of one training, as many in each window, and other values of dotted keys."""
    window = max(1, steps // WINDOWS)
    values: dict[str, Any] = configuration.model_dump(mode="json")
    for key, value in changes.items():
        *sections, last = key.split(".")
        reduce(getitem, sections, values)[last] = value
    values["training"][stage] |= {
        "steps": WINDOWS * window,
        "warmup_steps": 0,
        "log_every": window,
        "validate_every": WINDOWS * window,
        "checkpoint_every": WINDOWS * window,
    }
    return validate(values, where=f"a short training of {configuration.name}")
