"""Predicted bytes against written ones."""

from pathlib import Path

import pytest
from command_line import CONFIGS, TINY

from ups.config import Configuration, load_configuration
from ups.models.build import MODEL_FILE, build_model, save_model
from ups.pipeline.plan import kept_shape
from ups.pipeline.prediction import predicted_bytes
from ups.runtime.request import Request
from ups.stages import cache_encode, download

MIDDLE = {
    "data.trajectories": {"train": 60, "validation": 10, "test": 10},
    "data.resolution": 128,
    "data.solver_resolution": 256,
    "data.frames": 21,
    "cache_encode.trajectories_per_chunk": 32,
    "model.encoder.width": 64,
    "model.decoder.depth": 2,
}


def written(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def request(stage: str, root: Path, configuration: Configuration, *inputs: str) -> Request:
    (root / stage / "output").mkdir(parents=True)
    return Request(
        work=root / stage, stage=stage, digest="", code="", configuration=configuration,
        inputs={name: root / name / "output" for name in inputs}, contents=dict.fromkeys(inputs, "0" * 64),
    )  # fmt: skip


@pytest.mark.parametrize("overrides", [{}, MIDDLE], ids=["tiny", "middle"])
def test_data_and_cache_are_predicted_within_a_quarter(tmp_path, overrides):
    configuration = load_configuration(TINY, {"execution.device": "cpu"} | overrides)
    download.run(request("download", tmp_path, configuration))
    model, shape = configuration.model, kept_shape(configuration, None)
    description = {
        "kind": "autoencoder", "grid": [shape[1]], "tokens": [model.latent.tokens],
        "latent_dim": model.latent.dim, "channels": 1, "field_mean": [0.0], "field_deviation": [1.0],
        "encoder": model.encoder.model_dump(), "decoder": model.decoder.model_dump(),
    }  # fmt: skip
    request("autoencoder", tmp_path, configuration)
    save_model(tmp_path / "autoencoder" / "output" / MODEL_FILE, build_model(description), description)
    cache_encode.run(request("cache_encode", tmp_path, configuration, "download", "autoencoder"))
    for stage in ("download", "cache_encode"):
        real = written(tmp_path / stage / "output")
        assert predicted_bytes(stage, configuration, *shape) == pytest.approx(real, rel=0.25), stage


@pytest.mark.parametrize("name", ["burgers_tiny", "burgers_demo", "burgers_prod"])
def test_parameters_are_predicted_within_a_tenth(name):
    from ups.pipeline import prediction

    configuration = load_configuration(CONFIGS / f"{name}.yaml")
    _, points = kept_shape(configuration, None)
    model = configuration.model
    layout = {"grid": [points], "tokens": [model.latent.tokens], "latent_dim": model.latent.dim, "scalars": 2}

    def count(kind: str, **rest: object) -> int:
        return sum(p.numel() for p in build_model({"kind": kind, **layout, **rest}).parameters())

    sizes = {"encoder": model.encoder.model_dump(), "decoder": model.decoder.model_dump()}
    assert prediction._autoencoder(configuration, points) == pytest.approx(
        count("autoencoder", channels=1, **sizes), rel=0.1
    )
    assert prediction._conditioned(model.operator, model.latent.dim, inputs=1) == pytest.approx(
        count("operator", network=model.operator.model_dump()), rel=0.1
    )
    assert prediction._conditioned(model.denoiser, model.latent.dim, inputs=3) == pytest.approx(
        count("diffusion", network=model.denoiser.model_dump()), rel=0.1
    )


def test_every_stage_of_a_finished_run_fits_its_prediction(finished_root):
    """Checkpoints included, which are gone by now: so the artifacts alone must be smaller."""
    from ups.artifacts import Store

    root, _ = finished_root
    configuration = load_configuration(TINY)
    for path in Store(root):
        stage = path.parent.name
        predicted = predicted_bytes(stage, configuration, *kept_shape(configuration, None))
        assert 0.8 * written(path) < predicted, stage
