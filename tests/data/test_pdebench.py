"""PDEBench files: what is written comes back, and whatever is wrong with a file is named."""

import os
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.data import pdebench
from ups.data.pdebench import DATA_VERSION, TrajectoryWriter, inspect, read_trajectories, write_trajectories
from ups.errors import DataError, StorageError

ROWS, FRAMES, POINTS = 7, 5, 8
TIMES = 0.25 * np.arange(FRAMES)
COORDINATES = (np.arange(POINTS) + 0.5) / POINTS
FIELDS = np.random.default_rng(0).normal(size=(ROWS, FRAMES, POINTS)).astype(np.float32)
GENUINE = [
    ("1D_Burgers_Sols_Nu0.001.rows4.hdf5", "burgers1d", {"nu": 0.001}),
    ("1D_Burgers_Sols_Nu0.01.rows4.hdf5", "burgers1d", {"nu": 0.01}),
    ("1D_Advection_Sols_beta0.1.rows4.hdf5", "advection1d", {"beta": 0.1}),
    ("1D_Advection_Sols_beta1.0.rows4.hdf5", "advection1d", {"beta": 1.0}),
]


@pytest.fixture
def path(tmp_path):
    """A well-formed file of ours."""
    path = tmp_path / "burgers.hdf5"
    write_trajectories(path, FIELDS, TIMES, COORDINATES, parameters={"nu": 0.01}, attributes={"seed": 3})
    return path


def replace(path, name, data) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        if data is not None:
            file[name] = data


# Genuine files


@pytest.mark.parametrize(("name", "problem", "parameters"), GENUINE)
def test_genuine_files_are_described(genuine_data, name, problem, parameters):
    file = inspect(genuine_data / name, problem=problem)
    assert (file.rows, file.frames, file.resolution) == (4, 201, 1024)
    assert file.parameters == parameters
    assert file.data_version == DATA_VERSION
    np.testing.assert_allclose(file.times, 0.01 * np.arange(201), atol=1e-6)
    np.testing.assert_allclose(file.coordinates, (np.arange(1024) + 0.5) / 1024, atol=1e-7)


def test_genuine_rows_are_read_as_pdebench_reduces_them(genuine_data):
    path = genuine_data / GENUINE[0][0]
    with h5py.File(path, "r") as file:
        everything = file["tensor"][:]
    read = read_trajectories(path, np.array([3, 1]), space_stride=4, time_stride=5)
    assert read.fields.shape == (2, 41, 256)
    assert np.array_equal(read.fields, everything[[3, 1], ::5, ::4])
    np.testing.assert_allclose(read.times, 0.05 * np.arange(41), atol=1e-6)
    np.testing.assert_allclose(read.coordinates, (4 * np.arange(256) + 0.5) / 1024, atol=1e-7)


def test_genuine_layout_is_the_one_that_is_written(genuine_data, tmp_path):
    source = genuine_data / GENUINE[1][0]
    read = read_trajectories(source, np.arange(4))
    copy = tmp_path / "copy.hdf5"
    write_trajectories(copy, read.fields, read.times, read.coordinates, parameters=read.parameters)
    with h5py.File(source, "r") as expected, h5py.File(copy, "r") as written:
        assert set(written) == set(expected) == {"tensor", "x-coordinate", "t-coordinate"}
        for name in expected:
            assert written[name].dtype == expected[name].dtype
            assert written[name].shape == expected[name].shape
            assert written[name].chunks is None
            assert written[name].compression is None
            np.testing.assert_allclose(written[name][:], expected[name][:], rtol=0, atol=1e-6)
        assert np.array_equal(written["tensor"][:], expected["tensor"][:])
        assert dict(written.attrs) == dict(expected.attrs) == {"Nu": 0.01}


# Reading


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, ROWS - 1), max_size=10),
    space_stride=st.sampled_from([1, 2, 4, 8]),
    time_stride=st.sampled_from([1, 2, 4]),
    piece=st.sampled_from([1, 2, 3, 100]),
)
def test_any_rows_in_any_order(tmp_path_factory, rows, space_stride, time_stride, piece):
    path = tmp_path_factory.getbasetemp() / "any_rows.hdf5"
    if not path.exists():
        write_trajectories(path, FIELDS, TIMES, COORDINATES, parameters={"nu": 0.01})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdebench, "_READ_BYTES", piece * FRAMES * POINTS * 4)
        read = read_trajectories(
            path, np.array(rows, dtype=np.int64), space_stride=space_stride, time_stride=time_stride
        )
    assert read.fields.dtype == np.float32
    assert np.array_equal(read.fields, FIELDS[rows, ::time_stride, ::space_stride])
    assert read.rows.tolist() == rows
    assert np.array_equal(read.times, TIMES[::time_stride])
    assert np.array_equal(read.coordinates, COORDINATES[::space_stride])


@pytest.mark.parametrize(
    ("piece", "rows", "expected"),
    [
        (100, [5, 1, 4, 2], [slice(1, 3), slice(4, 6)]),
        (2, [0, 1, 2, 3, 4, 6], [slice(0, 2), slice(2, 4), slice(4, 5), slice(6, 7)]),
    ],
)
def test_only_the_wanted_rows_are_read_and_neighbours_at_once(path, monkeypatch, piece, rows, expected):
    selections = []
    genuine_read = h5py.Dataset.__getitem__

    def spy(dataset, selection, *arguments, **options):
        if dataset.name == "/tensor":
            selections.append(selection[0])
        return genuine_read(dataset, selection, *arguments, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    monkeypatch.setattr(pdebench, "_READ_BYTES", piece * FRAMES * POINTS * 4)
    read_trajectories(path, np.array(rows))
    assert selections == expected


def test_frames_are_counted_after_striding(path):
    read = read_trajectories(path, np.arange(2), time_stride=3, frames=2)  # 3 does not divide 4 intervals
    assert np.array_equal(read.fields, FIELDS[:2, [0, 3]])
    assert read.times.tolist() == [0.0, 0.75]


def test_unknown_datasets_and_attributes_are_ignored(path):
    with h5py.File(path, "a") as file:
        file["notes"] = np.arange(3)
        file.create_group("extra/deep")
        file.attrs["description"] = "undocumented"
    assert inspect(path).rows == ROWS
    assert np.array_equal(read_trajectories(path, np.arange(ROWS)).fields, FIELDS)


def test_the_surplus_stamp_may_be_absent(path):
    replace(path, "t-coordinate", TIMES.astype(np.float32))
    assert np.array_equal(inspect(path).times, TIMES)


def test_description_is_not_to_be_changed(path):
    with pytest.raises(ValueError, match="read-only"):
        inspect(path).times[0] = 1.0


# Malformed files: (how to spoil, what the message must say)

SPOILED = {
    "old version": (lambda p: replace(p, "x-coordinate", 2 * COORDINATES - 1), r"before October 2023.*4 pi"),
    "cell edges": (lambda p: replace(p, "x-coordinate", COORDINATES - 0.5 / POINTS), "x-coordinate.*centres"),
    "not uniform": (lambda p: replace(p, "x-coordinate", COORDINATES**1.1), "x-coordinate.*centres"),
    "other domain": (lambda p: replace(p, "x-coordinate", 2 * COORDINATES), "x-coordinate.*centres"),
    "x has NaN": (lambda p: replace(p, "x-coordinate", COORDINATES * np.nan), "x-coordinate.*nan"),
    "x too long": (lambda p: replace(p, "x-coordinate", (np.arange(9) + 0.5) / 9), "9 entries for 8 points"),
    "x has two axes": (lambda p: replace(p, "x-coordinate", COORDINATES[None]), r"shape \(1, 8\)"),
    "x is integer": (lambda p: replace(p, "x-coordinate", np.arange(8)), "x-coordinate.*int64"),
    "no x": (
        lambda p: replace(p, "x-coordinate", None),
        "no dataset x-coordinate; there are: t-coordinate, tensor",
    ),
    "no t": (lambda p: replace(p, "t-coordinate", None), "no dataset t-coordinate"),
    "no tensor": (
        lambda p: replace(p, "tensor", None),
        "no dataset tensor; there are: t-coordinate, x-coordinate",
    ),
    "t too short": (lambda p: replace(p, "t-coordinate", TIMES[:-1]), "4 stamps for 5 frames"),
    "t too long": (lambda p: replace(p, "t-coordinate", np.arange(7) / 4), "7 stamps for 5 frames"),
    "t not uniform": (lambda p: replace(p, "t-coordinate", TIMES**2), "t-coordinate.*equally spaced"),
    "t backwards": (lambda p: replace(p, "t-coordinate", -TIMES), "t-coordinate.*does not increase"),
    "tensor has four axes": (lambda p: replace(p, "tensor", FIELDS[..., None]), r"\(7, 5, 8, 1\)"),
    "tensor is float64": (lambda p: replace(p, "tensor", FIELDS.astype(np.float64)), "tensor.*float64"),
    "tensor is integer": (lambda p: replace(p, "tensor", FIELDS.astype(np.int32)), "tensor.*int32"),
    "tensor is empty": (lambda p: replace(p, "tensor", FIELDS[:0]), "tensor.*empty"),
    "one frame": (
        lambda p: (replace(p, "tensor", FIELDS[:, :1]), replace(p, "t-coordinate", TIMES[:2])),
        "two frames or more",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_malformed_layouts_are_named(path, case):
    spoil, message = SPOILED[case]
    spoil(path)
    for read in (inspect, lambda path: read_trajectories(path, np.arange(2))):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "fix:" in str(caught.value)


def test_a_dataset_that_was_never_written_is_not_read_as_zeros(path):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_dataset("tensor", FIELDS.shape, dtype="<f4")
    with pytest.raises(DataError, match="never written"):
        inspect(path)


def test_a_group_is_no_dataset(path):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_group("tensor")
    with pytest.raises(DataError, match="no dataset tensor"):
        inspect(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(path, kept):
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(DataError, match="not a complete HDF5 file") as caught:
        inspect(path)
    assert "MD5" in str(caught.value)


def test_other_files_and_missing_files_are_refused(tmp_path):
    other = tmp_path / "page.hdf5"
    other.write_text("<html>503 Service Unavailable</html>")
    with pytest.raises(DataError, match="not a complete HDF5 file"):
        inspect(other)
    for absent in (tmp_path / "absent.hdf5", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            inspect(absent)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_row_and_frame(path, value):
    with h5py.File(path, "a") as file:
        file["tensor"][5, 3, 2] = value
    with pytest.raises(DataError, match=r"row 5 .* frame 3"):
        read_trajectories(path, np.array([6, 5, 0]))
    assert len(read_trajectories(path, np.array([6, 4, 0])).fields) == 3  # the other rows are good


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": [0, 7]}, "row 7 .*rows 0 to 6"),
        ({"rows": [-1]}, "row -1 "),
        ({"space_stride": 3}, "space stride 3 does not divide the 8 points"),
        ({"space_stride": 0}, "space stride 0"),
        ({"time_stride": 3}, "time stride 3 does not divide the 4 intervals"),
        ({"time_stride": 0}, "time stride 0"),
        ({"frames": 6}, "6 frames were asked for, stride 1 leaves 5"),
        ({"time_stride": 2, "frames": 4}, "4 frames were asked for, stride 2 leaves 3"),
        ({"frames": 0}, "0 frames"),
    ],
)
def test_what_the_file_cannot_serve_is_named(path, arguments, message):
    arguments = {"rows": [0]} | arguments
    with pytest.raises(DataError, match=message) as caught:
        read_trajectories(path, arguments.pop("rows"), **arguments)
    assert str(path) in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("rows", [[0.0], [[0]], [True]])
def test_rows_must_be_row_numbers(path, rows):
    with pytest.raises(ValueError, match="rows must be integers"):
        read_trajectories(path, np.array(rows))


# The equation's parameter


def test_the_parameter_comes_from_the_attribute_or_the_caller_never_from_the_name(path):
    renamed = path.rename(path.with_name("1D_Burgers_Sols_Nu0.5.hdf5"))
    assert inspect(renamed).parameters == {"nu": 0.01}
    assert inspect(renamed, parameters={"nu": 0.01}).parameters == {"nu": 0.01}
    with pytest.raises(DataError, match=r"attribute Nu is 0.01, but 0.5 was expected"):
        inspect(renamed, parameters={"nu": 0.5})
    with h5py.File(renamed, "a") as file:
        del file.attrs["Nu"]
    with pytest.raises(DataError, match="no attribute Nu"):
        inspect(renamed)
    assert inspect(renamed, parameters={"nu": 0.25}).parameters == {"nu": 0.25}
    assert read_trajectories(renamed, [0], parameters={"nu": 0.25}).parameters == {"nu": 0.25}


@pytest.mark.parametrize("value", [np.nan, -1.0, "0.01", np.array([0.1, 0.2])])
def test_a_parameter_that_is_no_number_is_refused(path, value):
    with h5py.File(path, "a") as file:
        file.attrs["Nu"] = value
    with pytest.raises(DataError, match="Nu is"):
        inspect(path)


def test_a_file_of_another_problem_is_refused(path):
    with pytest.raises(DataError, match="no attribute beta"):
        inspect(path, problem="advection1d")
    with pytest.raises(DataError, match="burgers1d has the parameter nu, got beta"):
        inspect(path, parameters={"beta": 0.1})
    with pytest.raises(ValueError, match="problem must be one of"):
        inspect(path, problem="heat1d")
    with pytest.raises(ValueError, match="problem must be one of"):
        new_writer(path, problem="heat1d")


# Writing


def test_what_is_written_comes_back(path):
    with h5py.File(path, "r") as file:
        assert file["t-coordinate"][:].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]  # one more than frames
        assert file["tensor"].dtype == np.dtype("<f4")
        assert dict(file.attrs) == {"Nu": 0.01, "seed": 3}
    read = read_trajectories(path, np.arange(ROWS))
    assert np.array_equal(read.fields, FIELDS)
    assert np.array_equal(read.times, TIMES)
    assert np.array_equal(read.coordinates, COORDINATES)


def test_blocks_give_the_bytes_that_one_piece_gives(path, tmp_path):
    other = tmp_path / "blocks.hdf5"
    with TrajectoryWriter(
        other,
        rows=ROWS,
        times=TIMES,
        coordinates=COORDINATES,
        parameters={"nu": 0.01},
        attributes={"seed": 3},
    ) as writer:
        for start in range(0, ROWS, 3):
            writer.append(FIELDS[start : start + 3].astype(np.float64))
            assert not other.exists()  # nothing under this name before everything is there
    assert other.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocks.hdf5", "burgers.hdf5"]


def new_writer(path, **changes) -> TrajectoryWriter:
    arguments = {"rows": ROWS, "times": TIMES, "coordinates": COORDINATES, "parameters": {"nu": 0.01}}
    return TrajectoryWriter(path, **(arguments | changes))


def write(path, blocks) -> None:
    with new_writer(path) as writer:
        for block in blocks:
            if isinstance(block, BaseException):
                raise block
            writer.append(block)


SPOILED_BLOCKS = {
    "interrupted": ([FIELDS[:3], KeyboardInterrupt()], KeyboardInterrupt, None),
    "failed": ([FIELDS[:3], RuntimeError("generator failed")], RuntimeError, "generator failed"),
    "too few rows": ([FIELDS[:3]], DataError, "3 rows were given, 7 announced"),
    "too many rows": ([FIELDS, FIELDS[:1]], DataError, "8 rows were given, 7 announced"),
    "wrong frames": ([FIELDS[:, :4]], DataError, r"shape \(7, 4, 8\)"),
    "wrong axes": ([FIELDS[0]], DataError, r"shape \(5, 8\)"),
    "NaN": (
        [FIELDS[:3], np.where(np.arange(8) == 5, np.nan, FIELDS[3:])],
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
    write_trajectories(path, -FIELDS[:2], TIMES, COORDINATES, parameters={"nu": 0.1})
    read = read_trajectories(path, [0, 1])
    assert np.array_equal(read.fields, -FIELDS[:2])
    assert read.parameters == {"nu": 0.1}


def test_a_directory_that_does_not_exist_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        new_writer(tmp_path / "absent" / "file.hdf5").__enter__()


def test_a_full_disk_is_a_storage_error(path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(h5py.Dataset, "__setitem__", no_space)
    with pytest.raises(StorageError, match="No space left"):
        write(path, [FIELDS])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "cannot hold 0 rows"),
        ({"times": TIMES[:1]}, "two frames or more"),
        ({"times": TIMES**2}, "equally spaced"),
        ({"coordinates": COORDINATES + 0.1}, "cell centres"),
        ({"parameters": {}}, "has the parameter nu, got none"),
        ({"parameters": {"nu": np.nan}}, "nu is nan"),
        ({"parameters": {"beta": 1.0}}, "has the parameter nu, got beta"),
        ({"attributes": {"Nu": 0.1}}, "attribute Nu is the equation's parameter"),
    ],
)
def test_arguments_that_the_layout_cannot_hold_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        new_writer(tmp_path / "file.hdf5", **changes)
    assert list(tmp_path.iterdir()) == []


def test_advection_has_its_own_parameter(tmp_path):
    path = tmp_path / "advection.hdf5"
    write_trajectories(path, FIELDS, TIMES, COORDINATES, parameters={"beta": 0.4}, problem="advection1d")
    assert inspect(path, problem="advection1d").parameters == {"beta": 0.4}


def test_append_belongs_inside_the_block(tmp_path):
    with pytest.raises(ValueError, match="with TrajectoryWriter"):
        new_writer(tmp_path / "file.hdf5").append(FIELDS)
