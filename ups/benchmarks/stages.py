"""Stages in this one process, one after the other, without the pipeline around them."""

from pathlib import Path

from ups.artifacts.checksums import file_checksums
from ups.config import Configuration
from ups.models.build import MODEL_FILE
from ups.runtime.request import Request
from ups.stages import autoencoder, cache_encode, operator

_STAGES = {"autoencoder": autoencoder.run, "cache_encode": cache_encode.run, "operator": operator.run}


def run_stage(name: str, configuration: Configuration, work: Path, inputs: dict[str, Path]) -> Path:
    """Run a stage, unless it has been; the directory of what it wrote."""
    output = work / "output"
    if not (work / "outcome.json").exists():
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
