"""`ups forecast` and `ups export` on a finished run: what they write is what Python's forecast says."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray
from command_line import TINY
from command_line import ups as ups_command

import ups
from ups.commands.main import main
from ups.config import load_configuration
from ups.data.pdebench import inspect, read_trajectories
from ups.data.splits import generated_rows
from ups.problems.generated import Generated
from ups.tools.generation import generate_file

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


def test_a_run_is_conditioned_wherever_it_is_used(sealed_root, tmp_path):
    """Run, exported file and the scoring of a file have the rows of the run's own evaluation."""
    observations = {"sensors": [[0.25]], "times": [0.1], "noise": 1e-3}
    ttc = {"selection": {"kind": "least_squares"}, "members": 4, "observations": observations}
    settings = ("--set", "tracking.wandb=disabled", "--set", f"evaluation.ttc={json.dumps(ttc)}")
    assert main(["run", str(TINY), "--root", str(sealed_root), *settings]) == 0
    (run,) = (sealed_root / "runs").iterdir()
    table = {
        record["model"]: record["value"]
        for record in json.loads((run / "metrics.json").read_text())
        if record["metric"] == "trajectory_relative_l2"
    }
    data = load_configuration(TINY).data
    assert isinstance(data, Generated)
    rows = tmp_path / "test.hdf5"
    generate_file(
        data, generated_rows("test", data.counts.test), rows, tmp_path / "blocks", device="cpu", threads=1
    )
    truth = read_trajectories(rows, np.arange(4), problem="burgers1d").fields[..., 0]
    exported = tmp_path / "small.safetensors"
    assert main(["export", str(run), "--out", str(exported)]) == 0
    for source in (run, exported):
        made = ups.load(source, device="cpu").forecast(truth[:, 0], model="ttc", parameters={"nu": 0.01})
        wrong = np.linalg.norm(made.mean["u"] - truth[:, 1:], axis=(1, 2)) / np.linalg.norm(
            truth[:, 1:], axis=(1, 2)
        )
        assert wrong.mean() == pytest.approx(table["ttc"], rel=1e-5)
        assert "evaluate" in made.provenance["artifacts"]
    scored = ups_command("evaluate", exported, "--file", rows, "--device", "cpu", "--json")
    found = {
        record["model"]: record["value"]
        for record in json.loads(scored.stdout)
        if record["metric"] == "trajectory_relative_l2"
    }
    for model in ("operator", "ttc", "ttc_oracle"):
        assert found[model] == pytest.approx(table[model], rel=1e-5), model
    assert {"ttc_random", "ttc_observed"} <= found.keys()


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
