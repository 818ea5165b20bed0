"""Predicted bytes against written ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CONFIGS, TINY
from downloads import outcome, run_download, stage_request

from ups.config import Configuration, load_configuration
from ups.config.model import OPERATORS
from ups.config.schema import STAGES
from ups.config.sizes import KeptShape
from ups.config.stages.autoencoder import codec_weights
from ups.config.stages.diffusion import denoiser_weights
from ups.config.stages.operator import linear_path_weights, network_weights
from ups.data.splits import TRAJECTORIES
from ups.models.build import MODEL_FILE, build_model, save_model
from ups.models.shape import ProblemShape
from ups.pipeline.plan import kept_shapes
from ups.stages import cache_encode

MIDDLE = {
    "data.trajectories": {"train": 60, "validation": 10, "test": 10},
    "data.resolution": 128,
    "data.solver_resolution": 256,
    "data.frames": 21,
    "cache_encode.trajectories_per_chunk": 32,
    "model.encoder.width": 64,
    "model.decoder.depth": 2,
}


def everything(configuration: Configuration) -> dict[str, int]:
    """Trajectories of a store that has none yet."""
    return {name: data.counts.total for name, data in configuration.problems.items()}


def written(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def describe(configuration: Configuration) -> dict[str, Any]:
    """The autoencoder of a configuration, before its data are there."""
    problems = {}
    for name, data in configuration.problems.items():
        assert data.kept_grid is not None
        problems[name] = ProblemShape(
            equation=data.problem.name,
            variables=data.used_variables(),
            grid=data.kept_grid,
            tokens=(configuration.tokens(name),) * len(data.kept_grid),
            scored=tuple(range(data.channels)),
            boundary=data.usual_boundary,
            exact=configuration.symmetries(name).used("exact"),
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
    run_download(tmp_path, configuration)
    description, artifacts = describe(configuration), tmp_path / "artifacts"
    save_model(artifacts / "autoencoder" / "output" / MODEL_FILE, build_model(description), description)
    cache_encode.run(stage_request(tmp_path, "cache_encode", configuration))
    shapes = kept_shapes(configuration, None)
    # The blocks of a generation lie beside the files until these are sealed.
    blocks = sum(path.stat().st_size for path in (artifacts / "data").rglob(TRAJECTORIES))
    real = {
        "download": blocks + written(artifacts / "data"),
        "cache_encode": written(artifacts / "cache_encode" / "output"),
    }
    for stage, tolerance in (("download", of_data), ("cache_encode", of_cache)):
        predicted = STAGES[stage].bytes(configuration, shapes, everything(configuration))
        assert predicted == pytest.approx(real[stage], rel=tolerance), stage
    assert STAGES["download"].bytes(configuration, shapes, dict.fromkeys(shapes, 0)) == 0
    told = outcome(tmp_path)
    assert {name: KeptShape(t["frames"], tuple(t["grid"])) for name, t in told.items()} == shapes


def test_without_a_cache_only_the_codec_is_written(tmp_path):
    overrides = {"execution.device": "cpu", "loading.mode": "encode"}
    configuration = load_configuration(CONFIGS / "mix_tiny.yaml", overrides)
    run_download(tmp_path, configuration)
    description, artifacts = describe(configuration), tmp_path / "artifacts"
    save_model(artifacts / "autoencoder" / "output" / MODEL_FILE, build_model(description), description)
    cache_encode.run(stage_request(tmp_path, "cache_encode", configuration))
    shapes = kept_shapes(configuration, None)
    predicted = STAGES["cache_encode"].bytes(configuration, shapes, everything(configuration))
    assert predicted == pytest.approx(written(artifacts / "cache_encode" / "output"), rel=0.05)


def numbers(description: dict[str, Any]) -> int:
    """That a network's file holds."""
    with torch.device("meta"):
        built = build_model(description)
    return sum(value.numel() for value in built.state_dict().values())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_numbers_of_a_network_are_predicted(path):
    configuration = load_configuration(path)
    shapes, model = kept_shapes(configuration, None), configuration.model
    description = describe(configuration)
    predicted = {
        "autoencoder": codec_weights(configuration, shapes),
        "diffusion": denoiser_weights(configuration, shapes),
    }
    real = {
        "autoencoder": numbers(description),
        "diffusion": numbers(
            description
            | {
                "kind": "diffusion",
                "network": model.denoiser.model_dump(),
                "leads": {
                    name: 1 if data.problem.is_map else shapes[name].frames - 1
                    for name, data in configuration.problems.items()
                },
            }
        ),
    }
    # Places between walls and patterns of what is known are rounded up: much of a tiny network, little of another.
    assert predicted["autoencoder"] == pytest.approx(real["autoencoder"], rel=0.09)
    assert predicted["diffusion"] == pytest.approx(real["diffusion"], rel=0.07)


OPERATOR_SIZES: dict[str, dict[str, Any]] = {
    "transformer": {"width": 64, "depth": 2},
    "channels": {"kind": "transformer", "width": 64, "depth": 2, "channel_separated": True},
    "convolution": {"width": 64, "dilations": [1, 2, 1]},
    "pdet_unet": {"width": 64, "levels": 2},
    "hybrid": {"width": 64, "dilations": [1, 2]},
    "fno": {"width": 32, "modes": 4},
    "ffno": {"width": 32, "modes": 4},
    "unet": {"width": 16, "levels": 2},
    "linear": {},
}


@pytest.mark.parametrize("linear_path", ["frozen", "trained"])
@pytest.mark.parametrize(
    "path", [TINY, CONFIGS / "mix_tiny.yaml", CONFIGS / "pdebench_4task.yaml"], ids=lambda path: path.stem
)
@pytest.mark.parametrize("kind", [*OPERATORS, "channels"])
def test_numbers_of_every_kind_of_operator_are_predicted(kind, path, linear_path):
    """With walls a linear path is a matrix, where it is not too large."""
    chosen = {"kind": kind, "conserve": False, "linear_path": linear_path} | OPERATOR_SIZES[kind]
    configuration = load_configuration(path, {"model.operator": chosen})
    shapes, operator = kept_shapes(configuration, None), configuration.model.operator
    described = describe(configuration) | {
        "kind": "operator",
        "network": operator.model_dump(exclude={"linear_path", "conserve"}),
        "linear_path": dict.fromkeys(configuration.problems, linear_path),
        "conserve": False,
        "time_steps": [1],
        "average": {},
    }
    predicted = network_weights(configuration)
    predicted += linear_path_weights(configuration, shapes)
    assert predicted == pytest.approx(numbers(described), rel=0.05)


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
        sizes[name] = STAGES["download"].bytes(configuration, shapes, everything(configuration))
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
        if stage in {"data", "download", "figures"}:
            continue  # the first two together, above
        predicted = STAGES[stage].bytes(
            configuration, kept_shapes(configuration, None), everything(configuration)
        )
        assert 0.8 * written(path) < predicted, stage
