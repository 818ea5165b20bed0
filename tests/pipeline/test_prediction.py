"""Predicted bytes against written ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CONFIGS, TINY

from ups.config import Configuration, load_configuration
from ups.models.build import MODEL_FILE, build_model, save_model
from ups.models.shape import ProblemShape
from ups.pipeline.plan import kept_shapes
from ups.pipeline.prediction import KeptShape, predicted_bytes
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
        work=root / stage, root=root, stage=stage, digest="", code="", configuration=configuration,
        inputs={name: root / name / "output" for name in inputs}, contents=dict.fromkeys(inputs, "0" * 64),
    )  # fmt: skip


def describe(configuration: Configuration) -> dict[str, Any]:
    """The autoencoder of a configuration, before its data are there."""
    problems = {}
    for name, data in configuration.problems.items():
        assert data.kept_grid is not None
        axes, channels = len(data.kept_grid), data.channels
        problems[name] = ProblemShape(
            grid=data.kept_grid,
            tokens=(configuration.tokens(name),) * axes,
            channels=channels,
            scored=tuple(range(channels)),
            boundary=getattr(data, "boundary", data.problem.boundaries[0]),
            partly_known=data.problem.is_map,
            scalars=len(data.problem.parameters) + (not data.problem.is_map),
        ).to_json()
    model = configuration.model
    return {
        "kind": "autoencoder",
        "problems": problems,
        "latent_dim": model.latent.dim,
        "encoder": model.encoder.model_dump(),
        "decoder": model.decoder.model_dump(),
        "statistics": {
            name: {"field_mean": [0.0] * data.channels, "field_deviation": [1.0] * data.channels}
            for name, data in configuration.problems.items()
        },
    }


@pytest.mark.parametrize(
    ("path", "overrides", "of_data", "of_cache"),
    [(TINY, {}, 0.2, 0.05), (TINY, MIDDLE, 0.05, 0.05), (CONFIGS / "mix_tiny.yaml", {}, 0.05, 0.05)],
    ids=["tiny", "middle", "mix"],
)
def test_data_and_cache_are_predicted(tmp_path, path, overrides, of_data, of_cache):
    configuration = load_configuration(path, {"execution.device": "cpu"} | overrides)
    download.run(request("download", tmp_path, configuration))
    description = describe(configuration)
    request("autoencoder", tmp_path, configuration)
    save_model(tmp_path / "autoencoder" / "output" / MODEL_FILE, build_model(description), description)
    cache_encode.run(request("cache_encode", tmp_path, configuration, "download", "autoencoder"))
    shapes = kept_shapes(configuration, None)
    # The blocks of a generation lie beside the file until it is sealed.
    real = {
        "download": written(tmp_path / "download"),
        "cache_encode": written(tmp_path / "cache_encode" / "output"),
    }
    for stage, tolerance in (("download", of_data), ("cache_encode", of_cache)):
        predicted = predicted_bytes(stage, configuration, shapes)
        assert predicted == pytest.approx(real[stage], rel=tolerance), stage
    told = json.loads((tmp_path / "download" / "outcome.json").read_text())["summary"]["problems"]
    assert {name: KeptShape(t["frames"], tuple(t["grid"])) for name, t in told.items()} == shapes


def test_without_a_cache_only_the_codec_is_written(tmp_path):
    overrides = {"execution.device": "cpu", "loading.mode": "encode"}
    configuration = load_configuration(CONFIGS / "mix_tiny.yaml", overrides)
    download.run(request("download", tmp_path, configuration))
    description = describe(configuration)
    request("autoencoder", tmp_path, configuration)
    save_model(tmp_path / "autoencoder" / "output" / MODEL_FILE, build_model(description), description)
    cache_encode.run(request("cache_encode", tmp_path, configuration, "download", "autoencoder"))
    predicted = predicted_bytes("cache_encode", configuration, kept_shapes(configuration, None))
    assert predicted == pytest.approx(written(tmp_path / "cache_encode" / "output"), rel=0.05)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_parameters_are_predicted_within_a_twentieth(path):
    from ups.pipeline import prediction

    configuration = load_configuration(path)
    shapes, model = kept_shapes(configuration, None), configuration.model
    description = describe(configuration)

    def count(kind: str, **rest: object) -> int:
        with torch.device("meta"):
            built = build_model(description | {"kind": kind} | rest)
        return sum(p.numel() for p in built.parameters())

    assert prediction._autoencoder(configuration, shapes) == pytest.approx(count("autoencoder"), rel=0.05)
    for kind, network, inputs, extra in (
        ("operator", model.operator, 1, 0),
        ("diffusion", model.denoiser, 3, 1),
    ):
        predicted = prediction._conditioned(configuration, network, inputs=inputs, extra_scalars=extra)
        assert predicted == pytest.approx(count(kind, network=network.model_dump()), rel=0.05), kind


PUBLISHED = {"source": "pdebench", "dataset": "1D_Burgers_Sols_Nu0.01"}


def test_what_is_fetched_is_predicted_beside_what_is_kept():
    """A whole file lies in `downloads` too, or only the rows that were asked for."""
    counts = {"train": 90, "validation": 10, "test": 100}
    rows = {"test": [0, 100], "train": [1000, 1100]}
    sizes = {}
    for name, chosen in (("whole", {"trajectories": counts}), ("rows", {"rows": rows})):
        configuration = load_configuration(TINY, {"data": PUBLISHED | chosen})
        shapes = kept_shapes(configuration, None)
        assert shapes == {"burgers1d": KeptShape(41, (256,))}
        sizes[name] = predicted_bytes("download", configuration, shapes)
    kept = 200 * 41 * 1024 * 4
    assert sizes["whole"] == pytest.approx(8_232_968_312 + kept, rel=0.01)
    assert sizes["rows"] == pytest.approx(200 * 201 * 1024 * 4 + kept, rel=0.01)


def test_every_stage_of_a_finished_run_fits_its_prediction(finished_root):
    """Checkpoints included, which are gone by now: so the artifacts alone must be smaller."""
    from ups.artifacts import Store

    root, _ = finished_root
    configuration = load_configuration(TINY)
    for path in Store(root):
        stage = path.parent.name
        predicted = predicted_bytes(stage, configuration, kept_shapes(configuration, None))
        assert 0.8 * written(path) < predicted, stage
