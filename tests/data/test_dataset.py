"""From a source of trajectories to the arrays that stages read: generated, copied, fetched; whole or in part."""

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import TINY
from downloads import outcome, run_download, trajectory_file
from numpy.typing import NDArray
from small_files import FRAMES, Small, small

from ups.config import Configuration, load_configuration
from ups.data.dataset import Dataset, conditioning_scalars, load_datasets
from ups.data.layout import cell_centres
from ups.data.pdebench_writer import write_trajectories
from ups.errors import DataError, IntegrityError, UpsError
from ups.problems import PROBLEMS
from ups.problems.generated import SPLITS
from ups.problems.ideal_gas import to_conserved
from ups.problems.problem import ORIGINAL_ROWS
from ups.problems.published import PUBLISHED, PublishedFile
from ups.tools import copying, generation
from ups.tools.generation import _solved, generate_file
from ups.transfer import remote_rows

COUNTS = {"train": 4, "validation": 2, "test": 3}
GENERATED = {"source": "generated", "trajectories": COUNTS, "resolution": 8, "solver_resolution": 16}
EVOLVING = GENERATED | {"frames": 5, "frame_interval": 0.05, "solver_resolution": 32}
EQUATIONS: dict[str, dict[str, Any]] = {
    "burgers1d": EVOLVING | {"equation": "burgers1d", "nu": 0.1},
    "advection1d": EVOLVING | {"equation": "advection1d", "beta": 0.4},
    "darcy2d": GENERATED | {"equation": "darcy2d", "beta": 0.1},
    "compressible1d": EVOLVING | {"equation": "compressible1d", "eta": 0.1, "boundary": "outflow"},
}
# Two tokens and two steps fit the smallest grids and trajectories.
MODELS = {
    "execution.device": "cpu",
    "model.latent.tokens": 2,
    "model.denoiser.dilations": [1],
    "training.operator.residual_fraction": 0.5,
    "training.operator.rollout_steps": 1,
    "model.denoiser.leads_per_position": 1,
}


def configured(data: Any, **changes: Any) -> Configuration:
    return load_configuration(TINY, {"data": data} | MODELS | changes)


def run(folder: Path, data: Any, **changes: Any) -> dict[str, Dataset]:
    """The download stage in this process, and what is read back."""
    return load_datasets(run_download(folder / "root", configured(data, **changes)))


def written(folder: Path) -> Path:
    """What the stage wrote."""
    return folder / "root" / "artifacts" / "download" / "output"


def summary(folder: Path) -> dict[str, Any]:
    return outcome(folder / "root")


def expect_sound(data: Dataset, counts: dict[str, int]) -> None:
    """What every dataset promises, whatever it comes from."""
    problem = data.problem
    frames, axes = len(data.times), len(problem.axes)
    assert data.fields.dtype == np.float32
    assert data.fields.shape == (sum(counts.values()), frames, *data.grid, len(data.names))
    assert len(data.grid) == axes == len(data.coordinates)
    assert data.known.shape == (frames, len(data.names))
    assert data.known[1:].all()
    assert data.known[0].tolist() == [field.given or not problem.is_map for field in problem.fields]
    for channel, known in enumerate(data.known[0]):
        assert known or not data.fields[:, 0, ..., channel].any()
    assert data.scored == [n for n, field in enumerate(problem.fields) if not field.given]
    assert {name: len(rows) for name, rows in data.splits.items()} == counts
    together = np.concatenate(list(data.splits.values()))
    assert sorted(together) == list(range(len(data.fields)))
    assert len(set(data.rows.tolist())) == len(data.rows), "no trajectory serves twice"
    for name in counts:
        np.testing.assert_array_equal(data.split(name), data.fields[data.splits[name]])
    assert len(data.scalars) == len(problem.numbers)


# --- generated ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_problem_is_generated_and_read_back(tmp_path, name):
    settings = EQUATIONS[name]
    (data,) = run(tmp_path, settings).values()
    expect_sound(data, COUNTS)
    assert data.problem is PROBLEMS[name]
    assert data.grid == (8,) * len(data.problem.axes)
    assert data.names == tuple(field.name for field in data.problem.fields)
    assert data.boundary == settings.get("boundary", data.problem.boundaries[0])
    assert data.parameters == {
        parameter.name: pytest.approx(settings.get(parameter.name, settings.get("eta")), rel=1e-6)
        for parameter in data.problem.parameters
    }
    if data.problem.is_map:
        assert len(data.times) == 2
    else:
        np.testing.assert_allclose(data.times, 0.05 * np.arange(5), rtol=1e-6)
        speed = {"advection1d": 0.4, "compressible1d": 1 / 2}.get(data.problem.name, 1.0)
        assert data.time_step == pytest.approx(0.05, rel=1e-5)
        assert data.scalars[0] == pytest.approx(np.log(0.05 * speed), rel=1e-5)
    for channel, field in enumerate(data.problem.fields):
        values = data.fields[:, data.known[:, channel], ..., channel]
        assert values.std() > 0
        assert (values > 0).all() or not field.positive
    reported = summary(tmp_path)
    assert reported == {
        name: {
            "problem": name,
            "title": data.title,
            "version": data.version,
            "frames": len(data.times),
            "frame_interval": data.time_step,
            "boundary": data.boundary,
            "grid": list(data.grid),
            "trajectories": COUNTS,
        }
    }
    assert data.title.startswith(f"{name} ")
    assert "generated" in data.version


@pytest.mark.parametrize("name", EQUATIONS)
def test_kept_points_are_those_of_the_solver(tmp_path, name):
    """Every n-th cell of the solver's grid, which is what the file holds; a coordinate goes with each."""
    (data,) = run(tmp_path, EQUATIONS[name]).values()
    cells = EQUATIONS[name]["solver_resolution"]
    for split in SPLITS:
        fields = data.split(split)
        with h5py.File(trajectory_file(written(tmp_path), name, split)) as file:
            for channel, array in enumerate(data.problem.arrays):
                stored = np.asarray(file[array.key])
                assert dict(zip(array.axes, stored.shape, strict=True))["x"] == cells
                stride = cells // 8
                kept = stored[(slice(None), *(_of_axis(axis, stride) for axis in array.axes[1:]))]
                last = fields[:, -1, ..., channel] if "time" not in array.axes else fields[..., channel]
                np.testing.assert_array_equal(kept, last)
    for axis, domain in enumerate(data.problem.domain):
        stored = cell_centres(cells, domain)
        assert len(data.coordinates[axis]) == 8
        np.testing.assert_allclose(data.coordinates[axis], stored[:: cells // 8], rtol=1e-5, atol=1e-6)


def _of_axis(axis: str, stride: int) -> int | slice:
    return {"channel": 0, "time": slice(None)}.get(axis, slice(None, None, stride))


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_trajectory_is_a_function_of_its_seed_and_number(tmp_path, name):
    """More of them change none of those that were there, and another seed changes all."""
    (few,) = run(tmp_path / "few", EQUATIONS[name]).values()
    (many,) = run(tmp_path / "many", EQUATIONS[name] | {"trajectories": COUNTS | {"train": 9}}).values()
    (other,) = run(tmp_path / "other", EQUATIONS[name] | {"seed": 1}).values()
    assert len(set(few.rows.tolist())) == 9
    assert set(few.rows.tolist()) < set(many.rows.tolist())
    assert len(many.rows) == 14
    for place, row in enumerate(few.rows.tolist()):
        (same,) = np.flatnonzero(many.rows == row)
        # A block of a relaxation makes as many steps as its slowest row.
        np.testing.assert_allclose(
            many.fields[same], few.fields[place], rtol=1e-5 if name == "darcy2d" else 0
        )
        (changed,) = np.flatnonzero(other.rows == row)
        assert (other.fields[changed] != few.fields[place]).any()


def test_conserved_variables_are_computed_when_they_are_asked_for(tmp_path):
    settings = EQUATIONS["compressible1d"]
    (primitive,) = run(tmp_path / "a", settings).values()
    (conserved,) = run(tmp_path / "b", settings | {"variables": "conserved"}).values()
    assert primitive.names == ("density", "velocity", "pressure")
    assert conserved.names == ("density", "momentum", "energy")
    np.testing.assert_array_equal(primitive.rows, conserved.rows)
    expected = to_conserved(primitive.fields.astype(np.float64))
    np.testing.assert_allclose(conserved.fields, expected, rtol=1e-6)


def test_several_problems_come_in_one_artifact(tmp_path):
    problems = {
        "b": EQUATIONS["burgers1d"],
        "a": EQUATIONS["darcy2d"] | {"trajectories": COUNTS | {"train": 6}},
    }
    datasets = run(tmp_path, {"source": "mix", "problems": problems})
    assert list(datasets) == list(summary(tmp_path)) == ["a", "b"]
    expect_sound(datasets["a"], COUNTS | {"train": 6})
    expect_sound(datasets["b"], COUNTS)
    assert datasets["a"].problem.name == "darcy2d"
    validation = load_datasets(written(tmp_path), ("validation",))
    for name, data in validation.items():
        np.testing.assert_array_equal(data.fields, datasets[name].split("validation"))
        np.testing.assert_array_equal(data.rows, datasets[name].rows[datasets[name].splits["validation"]])


@pytest.mark.parametrize(
    ("name", "parameters", "numbers"),
    [
        ("burgers1d", {"nu": 0.02}, (0.1, 0.02)),
        ("advection1d", {"beta": 3.0}, (0.3,)),
        ("darcy2d", {"beta": 5.0}, (5.0,)),
        # The domain is of length 2.
        ("compressible1d", {"zeta": 3.0, "eta": 2.0}, (0.05, 1.0, 1.5)),
    ],
)
def test_scalars_are_logarithms_of_dimensionless_numbers_for_an_amplitude_of_one(name, parameters, numbers):
    times = np.array([0.0, 0.1, 0.2, 0.3])
    scalars = conditioning_scalars(PROBLEMS[name], times, parameters)
    assert scalars == [pytest.approx(np.log(value)) for value in numbers]


def test_what_is_the_same_physics_has_the_same_scalars():
    """A fast advection over a short step and a slow one over a long step."""
    scalars = [
        conditioning_scalars(PROBLEMS["advection1d"], step * np.arange(3), {"beta": 0.2 / step})
        for step in (0.05, 0.2)
    ]
    assert scalars[0] == pytest.approx(scalars[1], rel=1e-12)
    two = [
        conditioning_scalars(PROBLEMS["burgers1d"], step * np.arange(3), {"nu": 0.01}) for step in (0.05, 0.2)
    ]
    assert two[0] != two[1]


# --- a generation that is killed ------------------------------------------------------------------


class Counting:
    """A solver of row numbers; notes what it was asked for and can be killed."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at, self.asked = die_at, []

    def __call__(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        if self.die_at in rows:
            raise KeyboardInterrupt
        self.asked += rows.tolist()
        return torch.from_numpy(rows).float()[:, None].expand(-1, 3).contiguous()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("die_at", [0, 2, 5, 9])
def test_a_killed_generation_solves_no_block_twice(tmp_path, threads, die_at):
    killed = Counting(die_at)
    with pytest.raises(KeyboardInterrupt):
        list(_solved(killed, np.arange(10), tmp_path, 3, "cpu", threads))
    (tmp_path / "00000003.partial").write_bytes(b"half a block")
    resumed = Counting()
    blocks = list(_solved(resumed, np.arange(10), tmp_path, 3, "cpu", threads))
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], np.arange(10))
    assert sorted(killed.asked + resumed.asked) == list(range(10))
    assert list(_solved(Counting(0), np.arange(10), tmp_path, 3, "cpu", threads)), (
        "all blocks are there: none is solved"
    )


@pytest.mark.parametrize("name", EQUATIONS)
def test_blocks_of_any_size_make_the_same_file(tmp_path, monkeypatch, name):
    """A trajectory does not depend on those that are solved beside it, nor on how often it was killed."""
    data = configured(EQUATIONS[name]).problems[name]
    whole, pieces = tmp_path / "whole.hdf5", tmp_path / "pieces.hdf5"
    generate_file(data, np.arange(7), whole, tmp_path / "one", device="cpu", threads=1)
    for constant in ("_BLOCK", "_BLOCK_MAP"):
        monkeypatch.setattr(generation, constant, 3)
    generate_file(data, np.arange(7), pieces, tmp_path / "three", device="cpu", threads=2)
    assert len(list((tmp_path / "three").iterdir())) == 3
    (tmp_path / "three" / "00000003.npy").unlink()
    pieces.unlink()
    generate_file(data, np.arange(7), pieces, tmp_path / "three", device="cpu", threads=1)
    with h5py.File(whole) as first, h5py.File(pieces) as second:
        for array in data.problem.arrays:
            np.testing.assert_allclose(second[array.key], first[array.key], rtol=1e-5, atol=1e-6)


# --- the user's own file --------------------------------------------------------------------------

FILE = {"source": "file", "path": "", "trajectories": {"train": 2, "validation": 1, "test": 2}}
FILE_COUNTS = FILE["trajectories"]


def from_file(path: Path, made: Small, **changes: Any) -> dict[str, Any]:
    strides = {"space_stride": 1} if made.problem.is_map else {"space_stride": 1, "time_stride": 1}
    data = FILE | strides | {"path": str(path), "equation": made.problem.name, "test_first": 3}
    return data | changes


@pytest.mark.parametrize("name", PROBLEMS)
def test_rows_of_a_file_are_copied_as_they_are_and_the_first_are_for_testing(tmp_path, name):
    made = small(name)
    path = made.write(tmp_path / "rows.hdf5")
    (data,) = run(tmp_path, from_file(path, made)).values()
    expect_sound(data, FILE_COUNTS)
    assert data.rows[data.splits["test"]].tolist() == [0, 1]
    assert (data.rows[data.splits["train"]] >= 3).all()
    assert (data.rows[data.splits["validation"]] >= 3).all()
    np.testing.assert_array_equal(data.fields, made.primitive[data.rows])
    assert data.boundary == made.boundary
    assert data.parameters == pytest.approx(made.parameters)
    for axis, stored in zip(data.coordinates, made.coordinates, strict=True):
        np.testing.assert_allclose(axis, stored, rtol=1e-6)
    path.unlink()
    (again,) = load_datasets(written(tmp_path)).values()
    np.testing.assert_array_equal(again.fields, data.fields)


@pytest.mark.parametrize("name", ["burgers1d", "advection1d", "compressible1d"])
@pytest.mark.parametrize(("stride", "frames", "kept"), [(2, None, 3), (1, 3, 3), (2, 2, 2)])
def test_a_file_may_be_strided_in_time_and_space(tmp_path, name, stride, frames, kept):
    made = small(name, resolution=16)
    changes = {"time_stride": stride, "space_stride": 4, "frames": frames}
    path = made.write(tmp_path / "rows.hdf5")
    (data,) = run(tmp_path, from_file(path, made, **changes)).values()
    expect_sound(data, FILE_COUNTS)
    assert data.grid == (4,)
    np.testing.assert_array_equal(data.fields, made.primitive[data.rows][:, ::stride, ::4][:, :kept])
    np.testing.assert_allclose(data.times, 0.25 * stride * np.arange(kept))
    assert data.time_step == pytest.approx(0.25 * stride)
    speed = data.parameters.get("beta", 1.0) / (data.problem.domain[0][1] - data.problem.domain[0][0])
    assert data.scalars[0] == pytest.approx(np.log(0.25 * stride * speed))


def test_a_map_may_be_strided_in_space(tmp_path):
    made = small("darcy2d")
    path = made.write(tmp_path / "rows.hdf5")
    (data,) = run(tmp_path, from_file(path, made, space_stride=2), **{"model.latent.tokens": 1}).values()
    assert data.grid == (4, 5)
    np.testing.assert_array_equal(data.fields, made.primitive[data.rows][:, :, ::2, ::2])


def test_the_same_rows_whatever_the_seed_for_testing_and_others_for_training(tmp_path):
    made = small("advection1d")
    path = made.write(tmp_path / "rows.hdf5")
    chosen = set()
    for seed in range(6):
        (data,) = run(tmp_path / str(seed), from_file(path, made, seed=seed)).values()
        assert data.rows[data.splits["test"]].tolist() == [0, 1]
        chosen.add(tuple(data.rows[data.splits["train"]].tolist()))
    assert len(chosen) > 1
    (data,) = run(tmp_path / "any", from_file(path, made, test_first=None, seed=3)).values()
    expect_sound(data, FILE_COUNTS)


@pytest.mark.parametrize("name", PROBLEMS)
def test_rows_that_were_cut_from_a_file_keep_their_numbers_there(tmp_path, name):
    """What PDEBench tests on never trains, though here it stands in the middle."""
    made = small(name)
    numbers = np.array([3, 10, 999, 1000, 1001, 5000, 7000])
    path = made.write(tmp_path / "rows.hdf5", original_rows=numbers)
    for seed in range(4):
        (data,) = run(tmp_path / str(seed), from_file(path, made, test_first=1000, seed=seed)).values()
        assert data.rows[data.splits["test"]].tolist() == [3, 10]
        for part in ("train", "validation"):
            assert (data.rows[data.splits[part]] >= 1000).all()
        places = np.searchsorted(numbers, data.rows)
        np.testing.assert_array_equal(data.fields, made.primitive[places])
    # A copy of the copy still knows.
    with h5py.File(trajectory_file(written(tmp_path / "0"), name, "test")) as file:
        assert np.asarray(file[ORIGINAL_ROWS]).tolist() == [3, 10]
    too_many = from_file(path, made, test_first=1000, trajectories=FILE_COUNTS | {"test": 4})
    with pytest.raises(DataError, match=r"rows before 1000\) has 3 rows, but 4 test = 4"):
        run(tmp_path / "more", too_many)


def test_a_long_file_is_copied_block_by_block(tmp_path, monkeypatch):
    made = small("compressible1d")
    path = made.write(tmp_path / "rows.hdf5")
    (whole,) = run(tmp_path / "whole", from_file(path, made)).values()
    monkeypatch.setattr(copying, "_BLOCK", 2)
    (blocks,) = run(tmp_path / "blocks", from_file(path, made)).values()
    np.testing.assert_array_equal(blocks.fields, whole.fields)
    np.testing.assert_array_equal(blocks.rows, whole.rows)


def test_the_other_file_of_a_mix_is_named_where_it_is_wrong(tmp_path):
    good, bad = small("burgers1d"), small("darcy2d")
    paths = [made.write(tmp_path / f"{made.problem.name}.hdf5") for made in (good, bad)]
    with h5py.File(paths[1], "a") as file:
        file["tensor"][4, 0, 0, 0] = np.nan
    problems = {"good": from_file(paths[0], good), "bad": from_file(paths[1], bad) | {"seed": 1}}
    counts = {"train": 3, "validation": 1, "test": 2}
    problems["bad"]["trajectories"] = counts
    with pytest.raises(DataError, match=f"{paths[1]}.*row 4"):
        run(tmp_path, {"source": "mix", "problems": problems})
    assert not (written(tmp_path).parent / "outcome.json").exists()


# --- published files ------------------------------------------------------------------------------

PUBLISHED_ROWS = 1012
CHOSEN = {"test": [2, 5], "train": [1001, 1009]}


def published(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str = "burgers1d") -> Path:
    """A file of PDEBench's shape, but for its size, that is listed among the published ones."""
    problem = PROBLEMS[name]
    folder.mkdir(exist_ok=True)
    path = folder / "stand_in.hdf5"
    grid, frames = (8,) * len(problem.axes), 1 if problem.is_map else FRAMES
    fields = np.random.default_rng(0).random((PUBLISHED_ROWS, frames, *grid, len(problem.fields)))
    times = None if problem.is_map else 0.25 * np.arange(FRAMES)
    write_trajectories(
        path, fields.astype(np.float32) + 0.1, times, [cell_centres(8, domain) for domain in problem.domain],
        problem=name, parameters={p.name: 0.5 for p in problem.parameters}, boundary=problem.boundaries[0],
    )  # fmt: skip
    monkeypatch.setitem(
        PUBLISHED,
        "stand_in",
        PublishedFile(
            name="stand_in",
            problem_name=name,
            file_id=7,
            md5=hashlib.md5(path.read_bytes()).hexdigest(),
            parameters={p.name: 0.5 for p in problem.parameters},
            boundary=problem.boundaries[0],
            rows=PUBLISHED_ROWS,
            frames=frames,
            resolution=8,
            bytes=path.stat().st_size,
        ),
    )
    return path


def asked(address: str, **selection: Any) -> dict[str, Any]:
    strides = {"space_stride": 1, "time_stride": 1}
    return {"source": "pdebench", "dataset": "stand_in", "address": address} | strides | selection


def fields_of(path: Path, data: Dataset) -> NDArray[np.float32]:
    """The rows of a dataset, read by h5py alone; all fields are known in the last frame."""
    with h5py.File(path) as file:
        arrays = [np.asarray(file[array.key])[data.rows] for array in data.problem.arrays]
    if data.problem.is_map:
        arrays = [array.reshape(len(data.rows), 1, *data.grid) for array in arrays]
    return np.stack(arrays, axis=-1)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that knows byte ranges, as every real one does and Python's does not."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        self.server.asked.append(len(part))  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            stop = int(first) + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{stop}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the requests are in `asked`."""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serves the folder `served`."""
    monkeypatch.setenv("NO_PROXY", "*")
    handler = functools.partial(RangeHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        serving.asked = []  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["burgers1d", "darcy2d", "compressible1d"])
def test_chosen_rows_of_a_published_file_are_fetched_and_keep_their_numbers(tmp_path, monkeypatch, name):
    path = published(monkeypatch, tmp_path / "served", name)
    address = f"file://{tmp_path}/served/{{name}}"
    (data,) = run(tmp_path, asked(address, rows=CHOSEN)).values()
    expect_sound(data, {"train": 7, "validation": 1, "test": 3})
    assert data.rows[data.splits["test"]].tolist() == [2, 3, 4]
    assert data.rows[data.splits["train"]].tolist() == list(range(1001, 1008))
    assert data.rows[data.splits["validation"]].tolist() == [1008]
    expected = fields_of(path, data)
    np.testing.assert_array_equal(data.fields[:, -1:] if data.problem.is_map else data.fields, expected)
    downloads = tmp_path / "root" / "downloads"
    (kept,) = downloads.glob("*.hdf5")
    assert kept.name == "stand_in.rows-2-5_1001-1009.hdf5"
    record = json.loads(kept.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert (record["rows"], record["total_rows"], record["file_id"]) == (11, PUBLISHED_ROWS, 7)


def test_validation_rows_may_be_chosen_too_and_neighbours_are_fetched_together(tmp_path, monkeypatch):
    published(monkeypatch, tmp_path / "served")
    rows = {"test": [0, 2], "train": [1003, 1006], "validation": [1000, 1003]}
    (data,) = run(tmp_path, asked(f"file://{tmp_path}/served/{{name}}", rows=rows)).values()
    assert data.rows[data.splits["validation"]].tolist() == [1000, 1001, 1002]
    assert data.rows[data.splits["train"]].tolist() == [1003, 1004, 1005]
    (kept,) = (tmp_path / "root" / "downloads").glob("*.hdf5")
    assert kept.name == "stand_in.rows-0-2_1000-1006.hdf5"


def test_rows_over_http_cost_their_bytes_and_not_the_files(tmp_path, monkeypatch, server):
    path = published(monkeypatch, tmp_path / "served")
    monkeypatch.setattr(remote_rows, "_HEADER_BLOCK", 4096)  # the header of a small file
    address = f"http://127.0.0.1:{server.server_port}/{{name}}"
    (data,) = run(tmp_path, asked(address, rows=CHOSEN)).values()
    np.testing.assert_array_equal(data.fields, fields_of(path, data))
    assert sum(server.asked) < path.stat().st_size
    path.unlink()
    before = len(server.asked)
    shutil.rmtree(tmp_path / "root" / "artifacts")
    (again,) = run(tmp_path, asked(address, rows=CHOSEN)).values()
    np.testing.assert_array_equal(again.fields, data.fields)
    assert len(server.asked) == before, "what is here is not fetched again"


def test_rows_that_were_damaged_on_the_disk_are_fetched_again(tmp_path, monkeypatch):
    path = published(monkeypatch, tmp_path / "served")
    address = f"file://{tmp_path}/served/{{name}}"
    run(tmp_path, asked(address, rows=CHOSEN))
    (kept,) = (tmp_path / "root" / "downloads").glob("*.hdf5")
    content = bytearray(kept.read_bytes())
    content[-100] ^= 1
    kept.write_bytes(content)
    shutil.rmtree(tmp_path / "root" / "artifacts")
    (data,) = run(tmp_path, asked(address, rows=CHOSEN)).values()
    np.testing.assert_array_equal(data.fields, fields_of(path, data))


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_whole_file_is_checked_by_its_sum_and_its_first_rows_test(tmp_path, monkeypatch, server, scheme):
    path = published(monkeypatch, tmp_path / "served")
    addresses = {
        "file": f"file://{tmp_path}/served/{{name}}",
        "http": f"http://127.0.0.1:{server.server_port}/{{name}}",
    }
    counts = {"train": 6, "validation": 3, "test": 4}
    (data,) = run(tmp_path, asked(addresses[scheme], trajectories=counts)).values()
    expect_sound(data, counts)
    assert data.rows[data.splits["test"]].tolist() == [0, 1, 2, 3]
    for part in ("train", "validation"):
        assert (data.rows[data.splits[part]] >= 1000).all()
    np.testing.assert_array_equal(data.fields, fields_of(path, data))
    assert (tmp_path / "root" / "downloads" / "stand_in.hdf5").read_bytes() == path.read_bytes()


def test_a_whole_file_of_another_sum_is_refused(tmp_path, monkeypatch):
    path = published(monkeypatch, tmp_path / "served")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    counts = {"train": 6, "validation": 3, "test": 4}
    with pytest.raises(IntegrityError, match=r"MD5|md5"):
        run(tmp_path, asked(f"file://{tmp_path}/served/{{name}}", trajectories=counts))
    assert not (written(tmp_path).parent / "outcome.json").exists()
    assert not (tmp_path / "root" / "downloads" / "stand_in.hdf5").exists()


def test_too_few_rows_of_a_published_file_are_said(tmp_path, monkeypatch):
    published(monkeypatch, tmp_path / "served")
    counts = {"train": 20, "validation": 3, "test": 4}
    with pytest.raises(
        DataError, match=r"rows from 1000 on\) has 12 rows, but 20 train \+ 3 validation = 23"
    ):
        run(tmp_path, asked(f"file://{tmp_path}/served/{{name}}", trajectories=counts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 16}, r"has 5 frames of \(8,\) points, and stand_in has 5 of \(16,\)"),
        ({"frames": 9}, r"has 5 frames of \(8,\) points, and stand_in has 9 of \(8,\)"),
        ({"parameters": {"nu": 0.1}}, "0.5"),
    ],
)
def test_rows_of_another_file_are_refused(tmp_path, monkeypatch, change, message):
    """Without a sum of the whole, what can be compared is: shape, parameters, boundary."""
    published(monkeypatch, tmp_path / "served")
    monkeypatch.setitem(PUBLISHED, "stand_in", replace(PUBLISHED["stand_in"], **change))
    with pytest.raises(DataError, match=message) as caught:
        run(tmp_path, asked(f"file://{tmp_path}/served/{{name}}", rows=CHOSEN))
    assert "fix: " in str(caught.value)
    assert not (written(tmp_path).parent / "outcome.json").exists()


def test_an_address_where_nothing_is_is_said(tmp_path, monkeypatch, server):
    published(monkeypatch, tmp_path / "served")
    with pytest.raises(UpsError, match=r"elsewhere|no such file"):
        run(tmp_path, asked(f"file://{tmp_path}/elsewhere/{{name}}", rows=CHOSEN))
