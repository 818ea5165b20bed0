"""Any file of a run's problems is recognised, thinned to the models' grid and scored there or on its own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY
from downloads import write_splits
from safetensors.torch import save_file
from tiny import LATENT_DIM, NETWORK, RESIDUAL_NETWORK, SCALARS

from ups.config.conditioning import Conditioning
from ups.config.load import load_configuration
from ups.config.schema import Configuration
from ups.data.dataset import DESCRIPTION, load_datasets
from ups.data.layout import cell_centres
from ups.data.pdebench import inspect
from ups.data.pdebench_writer import write_trajectories
from ups.errors import ConfigurationError, DataError, IntegrityError
from ups.evaluation.conditioning import Fit
from ups.evaluation.evaluation_set import evaluation_set, train_means
from ups.evaluation.finer_grid import strided
from ups.evaluation.result_table import network_predictor
from ups.evaluation.surrogate import RESIDUAL_FILE, load_surrogate
from ups.evaluation.surrogate_file import read_surrogate, write_surrogate
from ups.evaluation.trained import Trained
from ups.evaluation.usage import Usage, usages_of
from ups.models.build import CODEC_FILE, MODEL_FILE, build_model, save_model
from ups.models.shape import ProblemShape
from ups.pipeline.device import resolve
from ups.problems import PROBLEMS
from ups.tools.score_file import Strides, find_strides, recognise, score_file

INTERVAL = 0.05
TRAINED = {  # equation, parameters, boundary, model's grid
    "thin": ("burgers1d", {"nu": 0.01}, "periodic", (32,)),
    "thick": ("burgers1d", {"nu": 0.1}, "periodic", (32,)),
    "porous": ("darcy2d", {"beta": 1.0}, "dirichlet", (8, 8)),
    "gas": ("compressible1d", {"eta": 0.1, "zeta": 0.1}, "outflow", (16,)),
}


def made_up(
    equation: str, *, parameters, boundary, grid, frames: int = 5, rows: int = 6, **changes
) -> tuple[np.ndarray, dict[str, Any]]:
    """Random smooth positive fields, and how they are written in the layout of an equation."""
    problem = PROBLEMS[equation]
    frames = 1 if problem.is_map else frames
    shape = (rows, frames, *grid, len(problem.fields))
    fields = np.exp(0.3 * np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    return fields, {
        "times": None if problem.is_map else changes.get("interval", INTERVAL) * np.arange(frames),
        "coordinates": [
            cell_centres(points, domain) for points, domain in zip(grid, problem.domain, strict=True)
        ],
        "problem": equation,
        "parameters": parameters,
        "boundary": boundary,
    }


def write(path: Path, equation: str, **values: Any) -> Path:
    fields, layout = made_up(equation, **values)
    write_trajectories(path, fields, **layout)
    return path


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return resolve(load_configuration(TINY))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts of a run whose networks were never trained; its trajectories are stored twice as fine."""
    root = tmp_path_factory.mktemp("artifacts")
    described, shapes = {}, {}
    for name, (equation, parameters, boundary, grid) in TRAINED.items():
        fine = tuple(2 * points for points in grid)
        fields, layout = made_up(equation, parameters=parameters, boundary=boundary, grid=fine)
        rows = {"train": [0, 1, 2], "validation": [3], "test": [4, 5]}
        parts = write_splits(root / "download", name, fields, rows, title=name, written=layout)
        described[name] = {
            "problem": equation, "variables": "primitive", "space_stride": 2, "parts": parts,
        }  # fmt: skip
        scored = [place for place, field in enumerate(PROBLEMS[equation].fields) if not field.given]
        shapes[name] = ProblemShape(
            equation=equation,
            grid=grid,
            tokens=tuple(points // 4 for points in grid),
            scored=tuple(scored),
            boundary=boundary,
        )
    (root / "download" / DESCRIPTION).write_text(json.dumps(described))
    shared = {
        "problems": {name: shape.to_json() for name, shape in shapes.items()},
        "latent_dim": LATENT_DIM,
        "codec": "c0ffee",
    }
    leads = {name: 1 if shape.problem.is_map else 4 for name, shape in shapes.items()}
    sampled = {"network": RESIDUAL_NETWORK, "leads": leads}
    parts = {
        "codec": {"encoder": NETWORK, "decoder": NETWORK},
        "operator": {
            "network": {"kind": "transformer"} | NETWORK,
            "linear_path": {},
            "conserve": False,
            "time_steps": [1],
            "average": {},
        },
        "diffusion": sampled | {"sampler": {"steps": 2, "sigma_min": 0.05, "centre": 3.0}},
        "consistency": sampled | {"sampler": {"second_sigma": 3.0, "sigma_min": 0.05}},
    }
    torch.manual_seed(0)
    for kind, own in parts.items():
        description = {"kind": kind} | shared | own
        model = build_model(description)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        place = root / "cache_encode" / CODEC_FILE if kind == "codec" else root / kind / MODEL_FILE
        save_model(place, model, description)
    stored = {
        f"{kind}/{name}": torch.randn(3, leads[name], shape.token_grid.token_count, LATENT_DIM)
        for kind in ("errors", "scaled")
        for name, shape in shapes.items()
    }
    save_file(stored, root / "diffusion" / RESIDUAL_FILE)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def trained(inputs, configuration) -> Trained:
    surrogate = load_surrogate(inputs, configuration)
    usages = usages_of(inputs["download"], surrogate.codec.shapes)
    means = train_means(inputs["download"], ["porous"])
    return Trained(surrogate, usages, means, configuration.evaluation, configuration.seed, {}, [], {})


@pytest.fixture(scope="module")
def usages(trained) -> dict[str, Usage]:
    return trained.usages


def scored(trained: Trained, path: Path, *, rows: int, at_file_resolution: bool, problem: str | None = None):
    return score_file(
        trained,
        path,
        rows=rows,
        problem=problem,
        at_file_resolution=at_file_resolution,
        device=torch.device("cpu"),
        threads=1,
    )


def file_of(name: str, path: Path, *, factor: int = 4, **changes) -> Path:
    equation, parameters, boundary, grid = TRAINED[name]
    values = {
        "parameters": parameters,
        "boundary": boundary,
        "grid": tuple(factor * points for points in grid),
    }
    return write(path / f"{name}.hdf5", equation, **(values | changes))


@pytest.mark.parametrize("name", list(TRAINED))
def test_a_file_is_recognised_by_layout_and_parameters(name, usages, tmp_path):
    found, described = recognise(file_of(name, tmp_path), usages, None)
    assert found == name
    assert described.problem.name == TRAINED[name][0]


def test_a_file_that_fits_several_problems_needs_a_name(usages, tmp_path):
    path = file_of("thin", tmp_path, parameters={"nu": 0.5})
    with pytest.raises(ConfigurationError, match=r"may belong to thin or thick(.|\n)*--problem NAME"):
        recognise(path, usages, None)
    assert recognise(path, usages, "thick")[0] == "thick"
    with pytest.raises(ConfigurationError, match=r"no problem 'thn'(.|\n)*thin, thick, porous, gas"):
        recognise(path, usages, "thn")


def test_a_file_of_no_problem_of_the_run_is_refused_with_the_reasons(usages, tmp_path):
    path = write(
        tmp_path / "wave.hdf5", "advection1d", parameters={"beta": 1.0}, boundary="periodic", grid=(64,)
    )
    with pytest.raises(
        DataError, match=r"belongs to no problem of the run \(thin: is a file of advection1d.*gas: "
    ):
        recognise(path, usages, None)
    absent = tmp_path / "absent.hdf5"
    with pytest.raises(DataError, match=r"^\S*absent.hdf5: there is no such file"):
        recognise(absent, usages, None)


def test_walls_where_the_model_has_none_are_refused(usages, tmp_path):
    path = file_of("gas", tmp_path, boundary="periodic")
    with pytest.raises(DataError, match="attribute boundary is periodic, but outflow was expected"):
        recognise(path, usages, "gas")


def test_strides_are_the_same_along_all_axes(tmp_path):
    square = inspect(file_of("porous", tmp_path, factor=3), problem="darcy2d")
    assert find_strides(square, grid=(8, 8), time_step=None) == Strides(3, 1)
    oblong = inspect(file_of("porous", tmp_path, grid=(16, 24)), problem="darcy2d")
    for grid in ((8, 8), (16, 16), (32, 48)):
        with pytest.raises(
            DataError, match=f"16 x 24 grid points, and the model's grid of {grid[0]} x {grid[1]} is not"
        ):
            find_strides(oblong, grid=grid, time_step=None)
    line = inspect(file_of("thin", tmp_path, interval=0.01, frames=11), problem="burgers1d")
    assert find_strides(line, grid=(32,), time_step=INTERVAL) == Strides(4, 5)


@pytest.mark.parametrize("name", list(TRAINED))
@pytest.mark.parametrize("at_file_resolution", [False, True])
def test_every_problem_is_scored_on_either_grid(name, at_file_resolution, trained, tmp_path):
    path = file_of(name, tmp_path)
    table = scored(trained, path, rows=4, at_file_resolution=at_file_resolution)
    grid = TRAINED[name][3]
    expected = [4 * points for points in grid] if at_file_resolution else list(grid)
    assert all(record["resolution"] == expected for record in table)
    assert {record["problem"] for record in table} == {name}
    assert {(record["n_trajectories"], record["split"]) for record in table} == {(4, "file")}
    trivial = ["train_mean"] if name == "porous" else ["persistence", "spatial_mean"]
    assert list(dict.fromkeys(record["model"] for record in table)) == [
        *trivial,
        "linear",
        "operator",
        "operator_dressed",
        "operator_dressed_scaled",
        "diffusion",
        "diffusion_zero_noise",
        "diffusion_mean",
        "consistency_1",
        "consistency_2",
    ]
    assert all(record["value"] is not None for record in table)


def values(table) -> dict[tuple[str, str, str | None], float]:
    """But what a clock gave."""
    return {
        (record["model"], record["metric"], record["field"]): record["value"]
        for record in table
        if record["unit"] != "s"
    }


def test_the_file_at_the_models_grid_is_scored_the_same_with_and_without_the_option(trained, tmp_path):
    path = file_of("porous", tmp_path, factor=1)
    either = [values(scored(trained, path, rows=6, at_file_resolution=option)) for option in (False, True)]
    assert either[0] == either[1]


@pytest.mark.parametrize("name", ["porous", "gas"])
def test_an_exported_surrogate_is_scored_as_its_run_is(name, trained, inputs, tmp_path):
    """But the rows of past errors, which it does not hold, and what is compared with them."""
    path, file = file_of(name, tmp_path), tmp_path / "exported.safetensors"
    write_surrogate(file, inputs, trained)
    of_run = values(scored(trained, path, rows=4, at_file_resolution=False))
    of_file = values(scored(read_surrogate(file, "cpu"), path, rows=4, at_file_resolution=False))
    assert of_file == {
        key: value
        for key, value in of_run.items()
        if not key[0].startswith("operator_dressed") and key[1] != "crps_over_dressed"
    }


def test_conditioned_rows_are_those_of_the_grid_and_steps_that_they_were_fitted_on(trained, tmp_path):
    evaluation = trained.evaluation.model_copy(update={"ttc": Conditioning(members=2)})
    conditioned = replace(trained, evaluation=evaluation, fits={"thin": Fit(None, torch.ones(4))})
    of_file = {"rows": 2, "problem": "thin"}
    path = file_of("thin", tmp_path)
    shorter = write(
        tmp_path / "short.hdf5",
        "burgers1d",
        parameters={"nu": 0.01},
        boundary="periodic",
        grid=(32,),
        frames=4,
    )
    assert {"ttc", "ttc_random", "ttc_oracle"} <= {
        model for model, *_ in values(scored(conditioned, path, at_file_resolution=False, **of_file))
    }
    for other, finer in ((path, True), (shorter, False)):
        table = scored(conditioned, other, at_file_resolution=finer, **of_file)
        assert "ttc" not in {model for model, *_ in values(table)}


@pytest.mark.parametrize("name", list(TRAINED))
def test_a_forecast_on_the_files_grid_holds_the_models_own(name, inputs, configuration):
    """Every second point of the fine forecast is the forecast at the models' resolution."""
    grid = TRAINED[name][3]
    coarse_data = load_datasets(inputs["download"], ("test",))[name]
    described = json.loads((inputs["download"] / DESCRIPTION).read_text())
    finer = {n: d | {"space_stride": 1} for n, d in described.items()}
    root = inputs["download"].parent / f"finer_{name}"
    root.mkdir()
    (root / DESCRIPTION).write_text(json.dumps(finer))
    for problem in TRAINED:
        (root / problem).symlink_to(inputs["download"] / problem)
    fine_data = load_datasets(root, ("test",))[name]
    surrogate = load_surrogate(inputs, configuration)
    forecaster = surrogate.forecasters(name)[1]
    mean = train_means(inputs["download"], [name])[name] if name == "porous" else None
    shown = []
    for data, stride in ((coarse_data, 1), (fine_data, 2)):
        given = evaluation_set(
            name, data, "test", torch.device("cpu"), seed=0, threads=1, mean=mean, stride=stride
        )
        forecast = network_predictor(surrogate.codec.of(name), forecaster, given.inputs, seed=0)(
            given.truth[:, 0]
        )
        shown.append(forecast.unflatten(3, data.grid))
    torch.testing.assert_close(strided(shown[1], 2, len(grid)), shown[0], rtol=1e-4, atol=1e-4)


def test_the_train_mean_is_that_of_the_train_rows(inputs):
    data = load_datasets(inputs["download"], ("train",))["porous"]
    mean = train_means(inputs["download"], ["porous"])["porous"]
    np.testing.assert_allclose(mean.numpy(), data.split("train")[:, 1].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "another"}, "latents of another encoder"),
        ({"problems": ["thin"]}, "was trained on other problems"),
        ({"grid": [16]}, "or on other shapes of them"),
    ],
)
def test_models_of_another_codec_or_of_other_problems_are_refused(
    changes, message, inputs, configuration, tmp_path
):
    description = json.loads(_header(inputs["operator"] / MODEL_FILE))
    if "codec" in changes:
        description |= changes
    if "problems" in changes:
        description["problems"] = {name: description["problems"][name] for name in changes["problems"]}
    if "grid" in changes:
        description["problems"]["thin"]["grid"] = changes["grid"]
    model = build_model(description)
    save_model(tmp_path / MODEL_FILE, model, description)
    with pytest.raises(IntegrityError, match=message):
        load_surrogate(inputs | {"operator": tmp_path}, configuration)


def _header(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()["description"]


def test_the_scalars_are_those_of_the_file(trained, inputs, tmp_path):
    """Time step and parameters: every second frame of a file that has them twice as often."""
    path = file_of("thin", tmp_path, interval=INTERVAL / 2, frames=5)
    table = scored(trained, path, rows=2, problem="thin", at_file_resolution=False)
    assert {record["frames"] for record in table} == {3}
    assert len(load_datasets(inputs["download"], ("test",))["thin"].scalars) == SCALARS
