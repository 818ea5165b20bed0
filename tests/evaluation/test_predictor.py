"""A surrogate in the user's terms: by name, in physical units, checked; and as one file."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from small_models import KNOWN, SHAPES, codec, operator, residual
from tiny import describe

from ups.config.conditioning import Conditioning
from ups.config.stages.evaluate import Evaluation
from ups.errors import ConfigurationError, DataError, IntegrityError, UpsError
from ups.evaluation.conditioning import Conditioner, Fit
from ups.evaluation.evaluation_set import ForecastInputs
from ups.evaluation.finer_grid import finer_coordinates
from ups.evaluation.predictor import Predictor
from ups.evaluation.surrogate import Surrogate
from ups.evaluation.surrogate_file import read_surrogate, write_surrogate
from ups.evaluation.trained import Trained
from ups.evaluation.usage import OutsideTraining, Usage
from ups.models.build import CODEC_FILE, MODEL_FILE, save_model
from ups.models.shape import ProblemShape
from ups.tools.export_surrogate import _write_program

SAMPLERS = {
    "diffusion": {"steps": 2, "sigma_min": 0.05, "centre": 3.0},
    "consistency": {"sigma_min": 0.05, "second_sigma": 3.0},
}


def centres(points: int) -> tuple[float, ...]:
    return tuple((np.arange(points) + 0.5) / points)


USAGES = {
    "wave": Usage(SHAPES["wave"], "waves", (centres(32),), 0.05, 4, {"nu": 0.5}, {"u": (0.5, 2.0)}),
    "map": Usage(
        SHAPES["map"],
        "maps",
        (centres(16), centres(16)),
        1.0,
        2,
        {"beta": 0.5},
        {next(f.name for f in SHAPES["map"].fields if f.given): (0.5, 2.0)},
    ),
}
LEAST_SQUARES = {"members": 3, "selection": {"kind": "least_squares"}}
EVALUATION = Evaluation.model_validate({"members": 3, "ttc": {"members": 3, "refinement": 8}})
FITS = {"wave": Fit(None, torch.tensor([0.2, 0.5, 1.0]))}
GIVEN = {"wave": "u", "map": next(iter(USAGES["map"].sizes))}
WAVE = np.sin(2 * np.pi * np.array(centres(32)), dtype=np.float32) + np.float32(0.3)


@pytest.fixture(scope="module")
def trained() -> Trained:
    surrogate = Surrogate(
        codec(), {}, operator(), residual("diffusion"), residual("consistency"), {}, SAMPLERS, members=3
    )
    means = {"map": torch.rand(*USAGES["map"].grid, 2, generator=torch.Generator().manual_seed(7))}
    return Trained(surrogate, USAGES, means, EVALUATION, 5, FITS, [{"value": 0.1}], {"run": "small"})


@pytest.fixture(scope="module")
def predictor(trained) -> Predictor:
    return Predictor(trained, "cpu")


def test_however_a_field_is_given_the_forecast_is_the_same(predictor):
    expected = predictor.forecast(WAVE, problem="wave").mean["u"]
    assert expected.shape == (1, 3, 32)
    table = xarray.Dataset({"u": (("sample", "x"), WAVE[None])}, {"x": np.array(centres(32))})
    for given in (WAVE[None], {"u": WAVE}, {"u": torch.from_numpy(WAVE)}, table, table["u"]):
        found = predictor.forecast(given, problem="wave").mean["u"]
        np.testing.assert_array_equal(np.asarray(found), expected)
    assert isinstance(predictor.forecast(torch.from_numpy(WAVE), problem="wave").mean["u"], torch.Tensor)


def test_of_a_finer_grid_every_kth_point_is_taken(predictor):
    finer = np.repeat(WAVE, 4)
    finer[1::4] += 7  # what lies between is not looked at
    expected = predictor.forecast(WAVE, problem="wave").mean["u"]
    np.testing.assert_array_equal(predictor.forecast(finer, problem="wave").mean["u"], expected)


def test_times_choose_among_steps_and_points_of_the_grid_are_the_grid(predictor):
    whole = predictor.forecast(WAVE, steps=7, problem="wave")
    np.testing.assert_allclose(whole.times, 0.05 * np.arange(1, 8))
    some = predictor.forecast(WAVE, times=[0.1, 0.35], points=np.array(centres(32)), problem="wave")
    np.testing.assert_allclose(some.mean["u"], whole.mean["u"][:, [1, 6]], rtol=0, atol=1e-6)
    around = predictor.forecast(WAVE, times=[0.1], points=[0.0, 1.0], problem="wave").mean["u"]
    np.testing.assert_allclose(around[..., 0], around[..., 1], atol=1e-5)


def test_points_are_those_of_a_finer_file(predictor):
    usage = replace(USAGES["wave"], coordinates=(tuple(np.array(centres(32)) - 0.5 / 32 + 0.5 / 128),))
    file = (np.arange(128) + 0.5) / 128  # of whose points the model has every fourth, from the first
    np.testing.assert_allclose(usage.places(file) % 1, finer_coordinates((32,), 4, periodic=True), atol=1e-6)


def test_an_ensemble_is_its_members(predictor):
    found = predictor.forecast(
        np.stack([WAVE, -WAVE]), model="diffusion", members=5, keep_members=True, problem="wave", seed=3
    )
    members = found.members["u"]
    assert members.shape == (2, 5, 3, 32)
    np.testing.assert_allclose(found.mean["u"], members.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.spread["u"], members.std(axis=1, ddof=1), atol=1e-6)
    again = predictor.forecast(np.stack([WAVE, -WAVE]), model="diffusion", members=5, problem="wave", seed=3)
    np.testing.assert_array_equal(again.mean["u"], found.mean["u"])
    other = predictor.forecast(np.stack([WAVE, -WAVE]), model="diffusion", members=5, problem="wave", seed=4)
    assert not np.array_equal(other.mean["u"], found.mean["u"])
    assert predictor.forecast(WAVE, problem="wave").spread is None


@pytest.mark.parametrize("problem", ["wave", "map"])
def test_conditioning_is_what_the_evaluation_makes(trained, problem):
    """Of the same first frames, in its batches of two, each with noise of its own."""
    usage, fitted = USAGES[problem], Fit(0.01, torch.linspace(0.4, 1.0, USAGES[problem].frames - 1))
    ttc = EVALUATION.ttc if problem == "wave" else Conditioning.model_validate(LEAST_SQUARES)
    evaluation = EVALUATION.model_copy(update={"batch_size": 6, "seed": 7, "ttc": ttc})
    conditioned = replace(trained, evaluation=evaluation, fits={problem: fitted})
    first = np.random.default_rng(0).uniform(0.5, 1.5, (5, *usage.grid)).astype(np.float32)
    states = torch.zeros(5, *usage.grid, len(usage.fields))
    states[..., [field.name for field in usage.fields].index(GIVEN[problem])] = torch.from_numpy(first)
    inputs = ForecastInputs(
        problem, KNOWN[problem], torch.tensor(usage.scalars(usage.parameters)), usage.frames - 1, usage.time_step,
        usage.parameters, tuple(map(np.asarray, usage.coordinates)),
    )  # fmt: skip
    evaluated = Conditioner(trained.surrogate, inputs, evaluation)
    parts = [evaluated.conditioned(evaluated.candidates(part), fitted) for part in states.split(2)]
    expected = usage.shape.scored_fields(torch.cat(parts)).flatten(2)
    predictor = Predictor(conditioned, "cpu")
    found = predictor.forecast({GIVEN[problem]: first}, model="ttc", problem=problem, seed=7)
    (name,) = found.mean
    np.testing.assert_allclose(found.mean[name].reshape(expected.shape), expected, rtol=0, atol=1e-6)
    assert found.spread is None
    assert found.provenance["members"] == 1
    plain = predictor.forecast({GIVEN[problem]: first}, problem=problem).mean[name]
    assert not np.allclose(found.mean[name], plain, atol=1e-4)
    assert predictor.models(problem)[-1] == "ttc"


def test_fewer_steps_of_conditioning_are_its_first_ones(predictor):
    whole = predictor.forecast(WAVE, model="ttc", problem="wave")
    some = predictor.forecast(WAVE, model="ttc", problem="wave", times=[0.1])
    np.testing.assert_array_equal(some.mean["u"], whole.mean["u"][:, 1:2])


def test_what_was_not_kept_is_told(trained):
    with pytest.raises(
        ConfigurationError, match=r"no model 'ttc': .*evaluate the run again, and export it again"
    ):
        Predictor(replace(trained, fits={}), "cpu").forecast(WAVE, model="ttc", problem="wave")


def test_a_map_has_no_time(predictor):
    field = np.random.default_rng(0).uniform(0.5, 1.5, (2, 16, 16)).astype(np.float32)
    found = predictor.forecast({GIVEN["map"]: field}, problem="map", model="consistency_1")
    (name,) = found.mean
    assert name != GIVEN["map"]
    assert found.mean[name].shape == found.spread[name].shape == (2, 16, 16)
    assert dict(found.to_xarray().sizes) == {"sample": 2, "x": 16, "y": 16}


def test_xarray_gets_names_units_and_provenance(predictor):
    table = predictor.forecast(WAVE, problem="wave", model="diffusion", parameters={"nu": 0.5}).to_xarray()
    assert set(table.data_vars) == {"u", "u_spread"}
    assert table["u"].dims == ("sample", "time", "x")
    assert table["u"].attrs["units"] == "length/time"
    assert table.attrs["run"] == "small"
    assert "'nu': 0.5" in table.attrs["parameters"]
    points = predictor.forecast(WAVE, points=[0.1, 0.2], problem="wave").to_xarray()
    assert points["u"].dims == ("sample", "time", "point")
    np.testing.assert_array_equal(points["x"], [0.1, 0.2])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"fields": {"v": WAVE}}, "give u, by name"),
        ({"fields": {"u": WAVE, "v": WAVE}}, "give u, by name"),
        ({"fields": WAVE[:30]}, r"give \[n, 32\]"),
        ({"fields": {"u": "wave"}}, "forecast: u: is no array of numbers.*lists of equal length"),
        ({"fields": [[0.0] * 32, [0.0] * 31]}, "forecast: u: is no array of numbers"),
        ({"fields": np.full(32, np.nan, dtype=np.float32)}, "not finite"),
        ({"fields": xarray.DataArray(WAVE, {"x": np.array(centres(32)) + 0.3}, ("x",))}, "model's points"),
        ({"fields": xarray.DataArray(WAVE[:, None], dims=("x", "sample"))}, "x come last"),
        ({"parameters": {"beta": 0.5}}, "has no parameter beta.*it has nu"),
        ({"parameters": {"nu": -0.5}}, "no logarithm"),
        ({"times": [0.07]}, "multiples of the time step 0.05"),
        ({"times": [0.1, 0.05]}, "ascending"),
        ({"steps": 2, "times": [0.05]}, "give one of them"),
        ({"steps": 0}, "no number of steps"),
        ({"points": [1.2]}, "1.2 is outside the domain, 0 to 1"),
        ({"points": [[0.1, 0.2]]}, r"give \[Q, 1\]"),
        ({"model": "difusion"}, "choose one of linear|choose one of operator"),
        ({"members": 4}, "operator has no ensemble"),
        ({"model": "ttc", "members": 4}, "ttc has no ensemble"),
        ({"model": "ttc", "points": [0.5]}, "on the model's grid.*choose another model"),
        ({"model": "ttc", "steps": 4}, "fitted for 3"),
        ({"model": "ttc", "problem": "map", "fields": {GIVEN["map"]: np.ones((16, 16))}}, "no model 'ttc'"),
        ({"model": "diffusion", "members": 0}, "no number of members"),
        ({"model": "diffusion", "steps": 9}, "at most 3 steps"),
        ({"problem": None}, "choose one of wave, map"),
        ({"problem": "waves"}, "choose one of wave, map"),
        ({"problem": "map", "fields": {GIVEN["map"]: np.ones((16, 16))}, "steps": 1}, "has no time"),
    ],
)
def test_what_is_wrong_is_named(predictor, changes, names):
    arguments: dict[str, Any] = {"fields": WAVE, "problem": "wave"} | changes
    with pytest.raises((DataError, ConfigurationError), match=f"(?s){names}"):
        predictor.forecast(**arguments)


def test_what_is_unlike_the_training_is_told(predictor):
    with pytest.warns(OutsideTraining, match="trained with 0.5"):
        predictor.forecast(WAVE, problem="wave", parameters={"nu": 0.4})
    with pytest.warns(OutsideTraining, match="other units"):
        predictor.forecast(100 * WAVE, problem="wave")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.forecast(WAVE, problem="wave", parameters={"nu": 0.5})


def test_a_density_is_positive():
    sizes = {"density": (0.5, 2.0), "velocity": (0.5, 2.0), "pressure": (0.5, 2.0)}
    shape = ProblemShape("compressible1d", (8,), (2,), (0, 1, 2), "periodic")
    usage = Usage(shape, "gas", (centres(8),), 0.1, 3, {"eta": 0.1, "zeta": 0.1}, sizes)
    states = np.ones((1, 8, 3), dtype=np.float32)
    usage.checked_fields(states)
    states[0, 3, 0] = 0
    with pytest.raises(DataError, match="density: has values down to 0, and is positive"):
        usage.checked_fields(states)


def stored(directory: Path) -> dict[str, Path]:
    """Networks of a run, as its artifacts hold them."""
    shared = {"codec": "a codec"}
    networks = {"codec": codec(), "operator": operator()} | {
        kind: residual(kind) for kind in ("diffusion", "consistency")
    }
    artifacts = {}
    for kind, network in networks.items():
        stage = "cache_encode" if kind == "codec" else kind
        artifacts[stage] = directory / stage
        description = describe(kind, SHAPES) | shared
        if kind in SAMPLERS:
            description["sampler"] = SAMPLERS[kind]
        save_model(artifacts[stage] / (CODEC_FILE if kind == "codec" else MODEL_FILE), network, description)
    return artifacts


def test_one_file_has_all_that_the_run_has(predictor, trained, tmp_path):
    file = tmp_path / "surrogate.safetensors"
    write_surrogate(file, stored(tmp_path), trained)
    read = read_surrogate(file, "cpu")
    for name in ("usages", "evaluation", "seed", "results", "provenance"):
        assert getattr(read, name) == getattr(trained, name), name
    assert {name: fit.to_json() for name, fit in read.fits.items()} == {"wave": FITS["wave"].to_json()}
    assert list(read.means) == ["map"]
    torch.testing.assert_close(read.means["map"], trained.means["map"], rtol=0, atol=0)
    again = Predictor(read, "cpu")
    for problem, model in (
        ("wave", "operator"),
        ("wave", "diffusion"),
        ("map", "consistency_2"),
        ("wave", "ttc"),
    ):
        shape = (2, *USAGES[problem].grid)
        field = np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(np.float32)
        one, other = (
            each.forecast({GIVEN[problem]: field}, problem=problem, model=model)
            for each in (predictor, again)
        )
        for name in one.mean:
            np.testing.assert_array_equal(one.mean[name], other.mean[name])
        assert one.provenance == other.provenance


@pytest.mark.parametrize(
    "fitted",
    [FITS["wave"], Fit(0.01, torch.ones(3)), Fit(None, torch.ones(3), 2.0, torch.tensor([0.0, 0.5, 1.0]))],
)
def test_what_was_fitted_is_read_as_it_was_written(fitted):
    written = json.loads(json.dumps(fitted.to_json()))
    read = Fit.from_json(written, "cpu")
    assert read.to_json() == written
    torch.testing.assert_close(read.gate, fitted.gate)
    with pytest.raises(IntegrityError, match="no fit of test-time conditioning"):
        Fit.from_json({"option": None}, "cpu")


def test_a_changed_byte_is_found(trained, tmp_path):
    file = tmp_path / "surrogate.safetensors"
    write_surrogate(file, stored(tmp_path), trained)
    whole = file.read_bytes()
    for place in (len(whole) // 2, len(whole) - 1, 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            read_surrogate(file, "cpu")
    file.write_bytes(whole[:-5])
    with pytest.raises(UpsError):
        read_surrogate(file, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("problem", list(SHAPES))
def test_an_exported_program_needs_torch_alone(predictor, tmp_path, problem):
    steps = None if problem == "map" else 2
    program = tmp_path / "operator.pt2"
    _write_program(predictor, program, problem, steps)
    usage = USAGES[problem]
    first = np.zeros((5, *usage.grid, len(usage.fields)), dtype=np.float32)
    given = usage.fields.index(usage.given[0])
    first[..., given] = np.random.default_rng(2).uniform(0.5, 1.5, first.shape[:-1])
    expected = predictor.forecast({GIVEN[problem]: first[..., given]}, problem=problem, steps=steps)
    np.save(tmp_path / "first.npy", first)
    code = (
        "import json, sys, numpy, torch\n"
        "about = {'about.json': ''}\n"
        "program = torch.export.load(sys.argv[1] + '/operator.pt2', extra_files=about).module()\n"
        "scalars = torch.tensor(list(json.loads(about['about.json'])['scalars'].values()))\n"
        "first = torch.from_numpy(numpy.load(sys.argv[1] + '/first.npy'))\n"
        "numpy.save(sys.argv[1] + '/out.npy', program(first, scalars).numpy())\n"
        "assert not any(name.split('.')[0] == 'ups' for name in sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}
    )
    found = np.load(tmp_path / "out.npy")
    for field in usage.forecast:
        part = found[..., usage.fields.index(field)]
        expected_part = expected.mean[field.name]
        np.testing.assert_allclose(part.reshape(expected_part.shape), expected_part, rtol=1e-4, atol=1e-5)


def test_known_fields_are_those_that_are_given():
    known = KNOWN["map"]
    assert known is not None
    assert [field in USAGES["map"].given for field in USAGES["map"].fields] == known.tolist()
