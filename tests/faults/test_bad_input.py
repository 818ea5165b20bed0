"""Input files that are not what they should be: exit code 3, with file, field and what to do; and good ones."""

import importlib.util
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from command_line import TINY, ups
from downloads import run_download, trajectory_file

from ups.artifacts import Store
from ups.config import load_configuration
from ups.config.numbers import parse_yaml
from ups.data.pdebench import PDEBenchFile
from ups.data.pdebench_writer import write_trajectories
from ups.errors import DataError, PreflightError, UpsError
from ups.pipeline import device as device_module
from ups.pipeline.device import Device
from ups.pipeline.score_run import score_on_file
from ups.problems import PROBLEMS
from ups.problems.problem import ORIGINAL_ROWS
from ups.tools.score_file import find_strides

ROWS = {"train": 4, "validation": 1, "test": 1}


def write(
    path: Path, *, rows: int = 6, frames: int = 9, points: int = 32, interval: float = 0.05, nu: float = 0.01
):
    x = (np.arange(points) + 0.5) / points
    t = np.arange(frames) * interval
    phase = np.linspace(0, 1, rows)[:, None, None]
    fields = np.sin(2 * np.pi * (x - t[:, None] + phase)).astype(np.float32)
    write_trajectories(
        path, fields[..., None], t, [x], problem="burgers1d", parameters={"nu": nu}, boundary="periodic"
    )
    return path


def configured(folder: Path, **data: object) -> Path:
    """A configuration that reads `rows.hdf5` beside it."""
    values = parse_yaml(TINY.read_text())
    values["data"] = {
        "source": "file", "path": "rows.hdf5", "trajectories": ROWS, "space_stride": 1, "time_stride": 1,
        "test_first": None, **data,
    }  # fmt: skip
    values["training"]["operator"]["residual_fraction"] = 0.5
    values["tracking"] = {"wandb": "disabled"}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def download_here(folder: Path, config: Path) -> Path:
    """The stage in this process; its output."""
    return run_download(folder / "root", load_configuration(config, {"execution.device": "cpu"}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def no_hdf5(path: Path) -> None:
    path.write_bytes(b"<html>404</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_fields(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["tensor"]


def without_viscosity(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs["Nu"]


def of_other_type(path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file["tensor"][:]
        del file["tensor"]
        file["tensor"] = values.astype(np.int32)


def of_other_rank(path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file["tensor"][:]
        del file["tensor"]
        file["tensor"] = values[..., None]


def with_nan(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["tensor"][3, 2, 5] = np.nan


def with_infinity(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["tensor"][3, 2, 5] = np.inf


def of_the_old_version(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["x-coordinate"][:] = np.linspace(-1, 1, 32, endpoint=False)


def inviscid(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["Nu"] = 0.0


DAMAGES = {
    truncate: "is not a complete HDF5 file",
    no_hdf5: "is not a complete HDF5 file",
    empty: "is not a complete HDF5 file",
    without_fields: "has no dataset tensor",
    without_viscosity: "has no attribute Nu",
    of_other_type: "values are int32, the layout has float32",
    of_other_rank: r"has shape \(6, 9, 32, 1\)",
    with_nan: "row 3 holds nan at frame 2, which is not finite",
    with_infinity: "row 3 holds inf at frame 2, which is not finite",
    of_the_old_version: "before October 2023",
    inviscid: "has {'nu': 0.0}, and the models are conditioned on its logarithm",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_named(tmp_path, damage):
    path = write(tmp_path / "rows.hdf5")
    damage(path)
    with pytest.raises(DataError, match=DAMAGES[damage]) as caught:
        download_here(tmp_path, configured(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n  fix: " in str(caught.value)
    assert not list((tmp_path / "root").rglob("outcome.json"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"space_stride": 5}, "space stride 5 does not divide the 32 points"),
        ({"time_stride": 3}, "time stride 3 does not divide the 8 intervals"),
        ({"frames": 12}, "12 frames were asked for, stride 1 leaves 9"),
        (
            {"trajectories": ROWS | {"train": 40}},
            r"data\.trajectories do not fit: .* has 6 rows, but .* = 42 were",
        ),
        ({"test_first": 1}, None),
        ({"test_first": 5}, r"data\.trajectories do not fit: .*rows from 5 on\) has 1 rows"),
        # The models do not fit: said before a row is copied, long before a training.
        (
            {"space_stride": 8},
            r"4 points .* and model\.latent\.tokens: 8 tokens do not divide the 4 grid points",
        ),
        ({"time_stride": 4}, None),
        ({"time_stride": 8}, r"2 frames .* and training\.operator\.rollout_steps: 2 steps need 3 frames"),
    ],
)
def test_what_does_not_fit_the_file_is_named(tmp_path, data, message):
    path = write(tmp_path / "rows.hdf5")
    config = configured(tmp_path, **data)
    if message is None:
        download_here(tmp_path, config)
        return
    with pytest.raises(DataError, match=message) as caught:
        download_here(tmp_path, config)
    assert str(path) in str(caught.value)
    assert not list((tmp_path / "root").rglob("trajectories.hdf5"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is not a complete HDF5 file"),
        pytest.param(with_nan, "row 3 holds nan at frame 2", marks=pytest.mark.slow),
        pytest.param(of_the_old_version, "before October 2023", marks=pytest.mark.slow),
    ],
)
def test_the_command_ends_with_3_and_leaves_no_artifact(tmp_path, damage, message):
    damage(write(tmp_path / "rows.hdf5"))
    done = ups("stage", "download", configured(tmp_path), "--root", tmp_path / "root")
    assert done.returncode == 3
    assert done.stderr.startswith(f"data error: {tmp_path / 'rows.hdf5'}")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(Store(tmp_path / "root")) == []


def test_a_missing_file_is_3_before_anything_is_written(tmp_path):
    done = ups("run", configured(tmp_path), "--root", tmp_path / "root")
    assert done.returncode == 3
    assert done.stderr == (
        f"data error: {tmp_path / 'rows.hdf5'}: no such file\n"
        "  fix: check data.path; it is relative to the configuration file\n"
    )
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_models_that_do_not_fit_a_file_cost_no_training(tmp_path):
    """First with a model that fits, then with one that does not: the data are there already."""
    write(tmp_path / "rows.hdf5")
    root, config = tmp_path / "root", configured(tmp_path)
    assert ups("stage", "download", config, "--root", root).returncode == 0
    for command in (["plan"], ["run"]):
        done = ups(*command, config, "--root", root, "--set", "model.latent.tokens=5")
        assert done.returncode == 2
        assert (
            "model.latent.tokens: 5 tokens do not divide the 32 grid points of burgers1d: choose one of 1, 2, 4,"
            in done.stderr
        )
    assert len(list((root / "runs").iterdir())) == 1


@pytest.mark.slow
def test_genuine_rows_go_through_the_first_stages(tmp_path, genuine_data):
    (tmp_path / "rows.hdf5").symlink_to(genuine_data / "1D_Burgers_Sols_Nu0.01.rows4.hdf5")
    config = configured(
        tmp_path, trajectories={"train": 2, "validation": 1, "test": 1}, space_stride=32, time_stride=5
    )  # fmt: skip
    done = ups("stage", "cache_encode", config, "--root", tmp_path / "root")
    assert done.returncode == 0, done.stderr + done.stdout
    store = Store(tmp_path / "root")
    artifacts = {path.parent.name: store.find(path.parent.name, path.name) for path in store}
    assert set(artifacts) == {"data", "download", "autoencoder", "cache_encode"}
    summary = artifacts["download"].manifest.summary
    told = summary["problems"]["burgers1d"]
    assert told["title"] == "burgers1d nu=0.01"
    assert (told["frames"], told["grid"]) == (41, [32])
    stored = artifacts["cache_encode"].manifest.summary["float16_round_trip"]["burgers1d"]
    assert stored["u"]["relative_l2"] < 3e-4
    copy = trajectory_file(artifacts["download"].path, "burgers1d", "test")
    with h5py.File(tmp_path / "rows.hdf5") as original, h5py.File(copy) as copied:
        rows = copied[ORIGINAL_ROWS][:]
        np.testing.assert_array_equal(copied["tensor"][:], original["tensor"][rows][:, ::5])


@pytest.fixture(scope="module")
def run_copy(finished_root, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scored") / "root"
    shutil.copytree(finished_root[0], root)
    return root / "runs" / finished_root[1].name


def test_a_finished_run_is_scored_on_genuine_rows(run_copy, genuine_data):
    file = genuine_data / "1D_Burgers_Sols_Nu0.01.rows4.hdf5"
    done = ups("evaluate", run_copy, "--file", file, "--rows", "3", "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert json.loads((run_copy / "scores" / f"{file.stem}-3-rows.json").read_text()) == records
    assert {record["n_trajectories"] for record in records} == {3}
    # As many as the generative models were trained on, of the file's 41 of the same interval.
    assert {record["frames"] for record in records} == {9}
    assert {record["dataset"] for record in records} == {f"{file.name} (burgers1d)"}
    errors = {r["model"]: r["value"] for r in records if r["metric"] == "trajectory_relative_l2"}
    assert set(errors) >= {"persistence", "spatial_mean", "operator", "diffusion", "consistency_1"}
    assert all(0 < value < 10 for value in errors.values())
    # The baselines need no model: their errors can be had from the file alone.
    with h5py.File(file) as opened:
        truth = opened["tensor"][:3, :45:5, ::32].astype(np.float64)
    wrong = np.linalg.norm(truth[:, 1:] - truth[:, :1], axis=2) / np.linalg.norm(truth[:, 1:], axis=2)
    metric = {r["metric"]: r["value"] for r in records if r["model"] == "persistence"}
    assert min(wrong.mean() * 0.8, 0.1) < metric["trajectory_relative_l2"] < wrong.max() * 1.2


def test_a_finished_run_is_scored_on_a_finer_grid(run_copy, tmp_path):
    """Twice the points and five times the frames, of which the model's own are taken."""
    file = write(tmp_path / "fine.hdf5", rows=2, points=64, frames=21, interval=0.01)
    before = sorted((run_copy / "logs").iterdir())
    done = ups("evaluate", run_copy, "--file", file)
    assert done.returncode == 0, done.stderr
    assert (
        "fine.hdf5 (burgers1d), file split: 2 trajectories, 4 steps, 32 points, u scored, seed 0"
        in done.stdout
    )
    assert done.stdout.count("\noperator ") == 1
    assert "fine.hdf5 lasts 0.2, the trajectories of the training 0.4" in done.stderr
    assert sorted((run_copy / "logs").iterdir()) == before, "nothing is left in the run"


def test_a_run_of_a_gpu_is_scored_without_one(run_copy, tmp_path, monkeypatch):
    """Its configuration holds what `auto` stood for there, or an optimiser whose library no scoring needs."""
    root = tmp_path / "root"
    shutil.copytree(run_copy.parents[1], root)
    run, file = root / "runs" / run_copy.name, write(tmp_path / "rows.hdf5", rows=2)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "torchao" and find_spec(name))
    monkeypatch.setattr(device_module, "_cuda_available", lambda: False)

    def scored(device: Device | None = None) -> list[tuple[str, str, float]]:
        records = score_on_file(run, file, rows=2, device=device, on_line=lambda line: None)
        return [(r["model"], r["metric"], r["value"]) for r in records if r["unit"] != "s"]

    as_trained = scored()
    values = parse_yaml((run / "config.yaml").read_text())
    values["execution"] |= {"device": "cuda", "cuda_graphs": True, "precision": "tf32", "compile": "blocks"}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert scored("cpu") == as_trained
    with pytest.raises(
        PreflightError, match=r"--device: no CUDA device.*\n  fix: set --device to cpu or auto"
    ):
        scored()
    values["execution"]["cuda_graphs"] = False
    values["training"]["autoencoder"]["optimizer"] = {"kind": "adamw_8bit"}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert scored("auto") == as_trained


def described(*, points: tuple[int, ...] = (32,), frames: int = 9, interval: float = 0.05) -> PDEBenchFile:
    name = "burgers1d" if len(points) == 1 else "darcy2d"
    return PDEBenchFile(
        path=Path("f.hdf5"),
        problem=PROBLEMS[name],
        rows=2,
        frames=frames,
        grid=points,
        times=np.arange(frames) * interval,
        coordinates=tuple(np.arange(n) / n for n in points),
        parameters={"nu": 0.01},
        boundary=PROBLEMS[name].boundaries[0],
        data_version="now",
    )


@pytest.mark.parametrize(
    ("file", "grid", "message"),
    [
        (described(points=(16,)), (32,), "has 16 grid points, and the model's grid of 32 is not among them"),
        (described(points=(48,)), (32,), "has 48 grid points"),
        (
            described(points=(32, 48)),
            (16, 16),
            "has 32 x 48 grid points, and the model's grid of 16 x 16 is not",
        ),
        (
            described(interval=0.02),
            (32,),
            r"has frames every 0\.02, and the model's step of 0\.05 is no multiple",
        ),
        (described(interval=0.1), (32,), r"has frames every 0\.1"),
        (described(interval=0.01, frames=5), (32,), "has 5 frames, too few for one step of 5 frames"),
    ],
)
def test_files_without_the_models_grid_or_frames_are_refused(file, grid, message):
    with pytest.raises(DataError, match=f"f.hdf5: {message}"):
        find_strides(file, grid=grid, time_step=0.05)


def test_the_command_says_what_a_file_lacks(run_copy, tmp_path):
    file = write(tmp_path / "other.hdf5", interval=0.02)
    done = ups("evaluate", run_copy, "--file", file)
    assert done.returncode == 3
    assert (
        f"data error: {file}: has frames every 0.02, and the model's step of 0.05 is no multiple"
        in done.stderr
    )
    assert "fix: give a file whose frame interval divides the model's time step" in done.stderr
    assert done.stdout == ""


def test_an_unfinished_run_cannot_be_scored(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run = root / "runs" / finished_root[1].name
    stages = ("operator", "consistency")
    paths = [next((root / "artifacts" / stage).iterdir()) for stage in stages]
    for stage in (*stages, "autoencoder", "evaluate"):  # the latter two are not read
        shutil.rmtree(root / "artifacts" / stage)
    done = ups("evaluate", run, "--file", "x")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"configuration error: {run}: what it made in operator, consistency is not here\n  fix: build it again"
    )
    assert f"verified before use: {paths[0]}, {paths[1]}\n" in done.stderr
    pointers = json.loads((run / "artifacts.json").read_text())
    del pointers["diffusion"]
    (run / "artifacts.json").write_text(json.dumps(pointers))
    assert "the run has no diffusion\n  fix: finish it" in ups("evaluate", run, "--file", "x").stderr


@pytest.mark.slow
def test_no_damage_of_a_file_is_a_crash(tmp_path):
    """Flipped bytes and cuts at random places: copied as they are, or refused; never anything else."""
    config = configured(tmp_path)
    path = write(tmp_path / "rows.hdf5")
    whole = path.read_bytes()
    chooser = np.random.default_rng(0)
    header = 8192  # the fields follow: a flip there is a number, unless it is not finite
    codes = []
    for trial in range(120):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            damaged = damaged[: chooser.integers(1, len(whole))]
        else:
            damaged[chooser.integers(0, header if trial % 4 == 1 else len(whole))] ^= 1 << chooser.integers(
                0, 8
            )
        path.write_bytes(damaged)
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        try:
            download_here(tmp_path, config)
            codes.append(0)
        except UpsError as error:
            codes.append(error.exit_code)
    assert set(codes) <= {0, 3, 4}
    assert codes.count(0) > 0
    assert codes.count(3) > 30
