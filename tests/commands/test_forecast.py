"""`ups forecast` and `ups export` on a finished run: what they write is what Python's forecast says."""

from pathlib import Path

import numpy as np
import pytest
import xarray

import ups
from ups.commands.main import main
from ups.data.pdebench import inspect, read_trajectories

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(finished_root) -> Path:
    return finished_root[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("given") / "given.hdf5"
    settings = ["resolution=64", "solver_resolution=64", "frames=4", "nu=0.01", "seed=9"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    assert main(["data", "generate", "burgers1d", str(path), "--rows", "3", *chosen]) == 0
    return path


def forecast(source: Path, file: Path, out: Path, *options: str) -> Path:
    assert (
        main(["forecast", str(source), "--file", str(file), "--out", str(out), "--device", "cpu", *options])
        == 0
    )
    return out


def test_trajectories_in_pdebenchs_layout_begin_with_the_given_frame(run, file, tmp_path):
    out = forecast(run, file, tmp_path / "out.hdf5", "--steps", "5")
    found = inspect(out, problem="burgers1d")
    assert (found.rows, found.frames, found.grid, found.parameters) == (3, 6, (32,), {"nu": 0.01})
    read = read_trajectories(out, np.arange(3), problem="burgers1d").fields[..., 0]
    given = read_trajectories(file, np.arange(3), problem="burgers1d", space_stride=2).fields[:, 0, :, 0]
    np.testing.assert_array_equal(read[:, 0], given)
    expected = ups.load(run, device="cpu").forecast(given, steps=5, parameters={"nu": 0.01}).mean["u"]
    np.testing.assert_allclose(read[:, 1:], expected, atol=1e-5)


def test_xarray_reads_mean_and_spread_of_an_exported_surrogate(run, file, tmp_path, capsys):
    surrogate = tmp_path / "small.safetensors"
    assert main(["export", str(run), "--out", str(surrogate)]) == 0
    options = ("--model", "diffusion", "--members", "4", "--seed", "7")
    tables = [
        xarray.open_zarr(forecast(source, file, tmp_path / name, *options), consolidated=False)
        for source, name in ((run, "run.zarr"), (surrogate, "file.zarr"))
    ]
    assert tables[0]["u"].dims == ("sample", "time", "x")
    assert tables[0]["u"].attrs["units"] == "length/time"
    assert float(tables[0]["u_spread"][:, 1:].min()) > 0
    assert float(tables[0]["u_spread"][:, 0].max()) == 0
    xarray.testing.assert_equal(*tables)
    assert tables[1].attrs["forecast"]["run"] == run.name

    capsys.readouterr()
    assert main(["export", str(run), "--out", str(surrogate)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["forecast", str(run), "--file", str(file), "--out", str(tmp_path / "x.csv")]) == 2
    assert ".zarr" in capsys.readouterr().err
    assert (
        main(
            ["forecast", str(run), "--file", str(file), "--out", str(tmp_path / "x.zarr"), "--model", "best"]
        )
        == 2
    )
    assert "choose one of" in capsys.readouterr().err
    assert not list(tmp_path.glob("*x.*"))
    assert not list(tmp_path.glob(".*"))
