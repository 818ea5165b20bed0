"""Writing: what is written comes back, in the genuine layout, whole or not at all."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_files import FRAMES, POINTS, ROWS, small

from ups.data.pdebench import inspect, read_trajectories
from ups.data.pdebench_writer import write_trajectories
from ups.errors import DataError, StorageError
from ups.problems import PROBLEMS
from ups.problems.published import PUBLISHED

BURGERS = small("burgers1d")
FIELDS, TIMES, COORDINATES = BURGERS.fields, BURGERS.times, BURGERS.coordinates[0]


@pytest.fixture
def path(tmp_path):
    """A well-formed Burgers file of ours."""
    return BURGERS.write(tmp_path / "burgers.hdf5", attributes={"seed": 3})


@pytest.mark.parametrize(
    "name", ["1D_Burgers_Sols_Nu0.01", "1D_Advection_Sols_beta1.0", "2D_DarcyFlow_beta1.0_Train"]
)
def test_genuine_layout_is_the_one_that_is_written(genuine_data, tmp_path, name):
    problem = PUBLISHED[name].problem
    (source,) = genuine_data.glob(f"{name}.rows*.hdf5")
    described = inspect(source, problem=problem.name)
    read = read_trajectories(source, np.arange(described.rows), problem=problem.name)
    copy = tmp_path / "copy.hdf5"
    write_trajectories(
        copy,
        read.fields[:, 1:] if problem.is_map else read.fields,
        None if problem.is_map else read.times,
        read.coordinates,
        problem=problem.name,
        parameters=read.parameters,
        boundary=read.boundary,
    )
    with h5py.File(source, "r") as expected, h5py.File(copy, "r") as written:
        assert set(written) == set(expected)
        for key in expected:
            assert written[key].dtype == expected[key].dtype
            assert written[key].shape == expected[key].shape
            assert written[key].chunks is None
            assert written[key].compression is None
            np.testing.assert_allclose(written[key][:], expected[key][:], rtol=0, atol=1e-6)
        for array in problem.arrays:
            assert np.array_equal(written[array.key][:], expected[array.key][:])
        assert set(written.attrs) == set(expected.attrs) | {"problem", "boundary"}
        assert all(written.attrs[attribute] == expected.attrs[attribute] for attribute in expected.attrs)


def test_what_is_written_comes_back(path):
    with h5py.File(path, "r") as file:
        assert file["t-coordinate"][:].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]  # one more than frames
        assert file["tensor"].dtype == np.dtype("<f4")
        assert dict(file.attrs) == {"problem": b"burgers1d", "boundary": b"periodic", "Nu": 0.01, "seed": 3}
    read = read_trajectories(path, np.arange(ROWS), problem="burgers1d")
    assert np.array_equal(read.fields, FIELDS)
    assert np.array_equal(read.times, TIMES)
    assert np.array_equal(read.coordinates[0], COORDINATES)


@pytest.mark.parametrize("name", PROBLEMS)
def test_blocks_give_the_bytes_that_one_piece_gives(tmp_path, name):
    written = small(name)
    whole, other = written.write(tmp_path / "whole.hdf5"), tmp_path / "blocks.hdf5"
    with written.writer(other) as writer:
        for start in range(0, ROWS, 3):
            writer.append(written.fields[start : start + 3].astype(np.float64))
            assert not other.exists()  # nothing under this name before everything is there
    assert other.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocks.hdf5", "whole.hdf5"]


def write(path, blocks) -> None:
    with BURGERS.writer(path) as writer:
        for block in blocks:
            if isinstance(block, BaseException):
                raise block
            writer.append(block)


SPOILED_BLOCKS = {
    "interrupted": ([FIELDS[:3], KeyboardInterrupt()], KeyboardInterrupt, None),
    "failed": ([FIELDS[:3], RuntimeError("generator failed")], RuntimeError, "generator failed"),
    "too few rows": ([FIELDS[:3]], DataError, "3 rows were given, 7 announced"),
    "too many rows": ([FIELDS, FIELDS[:1]], DataError, "8 rows were given, 7 announced"),
    "wrong frames": ([FIELDS[:, :4]], DataError, r"shape \(7, 4, 8, 1\)"),
    "wrong axes": ([FIELDS[0]], DataError, r"shape \(5, 8, 1\)"),
    "no channel": ([FIELDS[..., 0]], DataError, r"shape \(7, 5, 8\)"),
    "NaN": (
        [FIELDS[:3], np.where(np.arange(8)[:, None] == 5, np.nan, FIELDS[3:])],
        DataError,
        "row 3 .* frame 0",
    ),
    "beyond float32": ([FIELDS.astype(np.float64) * 1e39], DataError, "row 0 "),
}


@pytest.mark.parametrize("case", SPOILED_BLOCKS)
def test_a_failed_write_leaves_what_was_there(path, case):
    blocks, error, message = SPOILED_BLOCKS[case]
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        write(path, blocks)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("name", "channel"), [("darcy2d", 0), ("compressible1d", 0), ("compressible1d", 2)])
def test_positive_fields_are_written_positive(tmp_path, name, channel):
    written = small(name)
    written.fields[4, ..., channel] *= -1
    with pytest.raises(DataError, match=r"row 4 holds .* which is positive"):
        written.write(tmp_path / "file.hdf5")


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(path, monkeypatch):
    events = []
    genuine_sync, genuine_replace = os.fsync, Path.replace

    def sync(descriptor):
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append(f"sync {kind}")
        genuine_sync(descriptor)

    def rename(source, target):
        events.append("rename")
        return genuine_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    write(path, [FIELDS])
    assert events == ["sync file", "rename", "sync directory"]


def test_a_second_write_replaces_the_first(path):
    write_trajectories(path, -FIELDS[:2], **(BURGERS.arguments | {"parameters": {"nu": 0.1}}))
    read = read_trajectories(path, [0, 1], problem="burgers1d")
    assert np.array_equal(read.fields, -FIELDS[:2])
    assert read.parameters == {"nu": 0.1}


def test_a_directory_that_does_not_exist_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        BURGERS.writer(tmp_path / "absent" / "file.hdf5").__enter__()


def test_a_full_disk_is_a_storage_error(path):
    """A limit on the size of files stands in for the full disk: the system fails the write half-way."""
    before = path.read_bytes()
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from small_files import small; from ups.errors import StorageError\n"
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "big = small('burgers1d', resolution=4096)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try: big.write(Path(sys.argv[1]))\n"
        "except StorageError as error: print(error); sys.exit(41)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 41, done.stdout + done.stderr
    assert "fix:" in done.stdout
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "cannot hold 0 rows"),
        ({"times": TIMES[:1]}, "two frames or more"),
        ({"times": TIMES**2}, "equally spaced"),
        ({"times": None}, "burgers1d has times"),
        ({"coordinates": [COORDINATES + 0.1]}, "equal cells"),
        ({"coordinates": [COORDINATES, COORDINATES]}, "has the space axes x, got 2 coordinates"),
        ({"parameters": {}}, "has the parameter nu, got none"),
        ({"parameters": {"nu": np.nan}}, "nu is nan"),
        ({"parameters": {"beta": 1.0}}, "has the parameter nu, got beta"),
        ({"boundary": "outflow"}, "is 'outflow', and burgers1d has periodic"),
        ({"attributes": {"Nu": 0.1}}, "attribute Nu belongs to the layout"),
        ({"attributes": {"problem": "darcy2d"}}, "attribute problem belongs to the layout"),
        ({"original_rows": np.arange(6)}, "are not 7 different row numbers"),
        ({"original_rows": np.zeros(7, dtype=int)}, "are not 7 different row numbers"),
    ],
)
def test_arguments_that_the_layout_cannot_hold_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        BURGERS.writer(tmp_path / "file.hdf5", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_map_has_no_times(tmp_path):
    with pytest.raises(DataError, match="darcy2d has no times"):
        small("darcy2d").writer(tmp_path / "file.hdf5", times=TIMES)
    with pytest.raises(ValueError, match="problem must be one of"):
        BURGERS.writer(tmp_path / "file.hdf5", problem="heat1d")


def test_a_map_is_stored_as_pdebench_does(tmp_path):
    path = small("darcy2d").write(tmp_path / "darcy.hdf5")
    with h5py.File(path, "r") as file:
        assert set(file) == {"nu", "tensor", "x-coordinate", "y-coordinate"}
        assert file["nu"].shape == (ROWS, POINTS, POINTS + 2)
        assert file["tensor"].shape == (ROWS, 1, POINTS, POINTS + 2)
        assert file.attrs["beta"] == 0.01


def test_a_flow_is_stored_as_pdebench_does(tmp_path):
    path = small("compressible1d").write(tmp_path / "flow.hdf5")
    with h5py.File(path, "r") as file:
        assert set(file) == {"density", "Vx", "pressure", "x-coordinate", "t-coordinate"}
        assert {file[key].shape for key in ("density", "Vx", "pressure")} == {(ROWS, FRAMES, POINTS)}
        assert file.attrs["boundary"] == b"outflow"


def test_append_belongs_inside_the_block(tmp_path):
    with pytest.raises(ValueError, match="with TrajectoryWriter"):
        BURGERS.writer(tmp_path / "file.hdf5").append(FIELDS)
