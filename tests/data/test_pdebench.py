"""PDEBench files: what they hold is read as declared, and whatever is wrong with one is named."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_files import FRAMES, POINTS, ROWS, small

from ups.data import pdebench_rows
from ups.data.pdebench import DATA_VERSION, inspect, read_trajectories
from ups.problems import PROBLEMS
from ups.problems.ideal_gas import GAMMA, to_conserved
from ups.problems.published import PUBLISHED

BURGERS = small("burgers1d")
FIELDS, TIMES, COORDINATES = BURGERS.fields, BURGERS.times, BURGERS.coordinates[0]
GENUINE = [
    "1D_Burgers_Sols_Nu0.001",
    "1D_Burgers_Sols_Nu0.01",
    "1D_Advection_Sols_beta0.1",
    "1D_Advection_Sols_beta1.0",
    "2D_DarcyFlow_beta1.0_Train",
]


@pytest.fixture
def path(tmp_path):
    """A well-formed Burgers file of ours."""
    return BURGERS.write(tmp_path / "burgers.hdf5", attributes={"seed": 3})


@pytest.fixture(params=PROBLEMS)
def case(request, tmp_path):
    """(what was written, its path), for every problem."""
    written = small(request.param)
    return written, written.write(tmp_path / "file.hdf5")


def read(path, rows, **options):
    return read_trajectories(path, rows, problem="burgers1d", **options)


def describe(path, **options):
    return inspect(path, problem="burgers1d", **options)


def replace(path, name, data) -> None:
    """Another dataset in its place, float32 as the layout has it unless the data are of another kind."""
    with h5py.File(path, "a") as file:
        del file[name]
        if data is not None:
            file[name] = data


def single(values):
    return np.asarray(values, dtype=np.float32)


# Genuine files


def genuine_path(genuine_data, name):
    (path,) = genuine_data.glob(f"{name}.rows*.hdf5")
    return path


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_files_are_described(genuine_data, name):
    published = PUBLISHED[name]
    file = inspect(genuine_path(genuine_data, name), problem=published.problem_name)
    assert file.problem is published.problem
    assert file.rows == (2 if file.problem.is_map else 4)
    assert file.grid == (published.resolution,) * len(file.problem.axes)
    assert file.parameters == published.parameters
    assert file.boundary == published.boundary
    assert file.data_version == DATA_VERSION
    assert file.original_rows is None
    if file.problem.is_map:
        assert file.times.tolist() == [0.0, 1.0]
    else:
        assert file.frames == published.frames
        np.testing.assert_allclose(file.times, 0.01 * np.arange(201), atol=1e-6)
    for axis in file.coordinates:
        np.testing.assert_allclose(axis, (np.arange(len(axis)) + 0.5) / len(axis), atol=1e-7)


def test_genuine_rows_are_read_as_pdebench_reduces_them(genuine_data):
    path = genuine_path(genuine_data, GENUINE[0])
    with h5py.File(path, "r") as file:
        everything = file["tensor"][:]
    some = read(path, np.array([3, 1]), space_stride=4, time_stride=5)
    assert some.fields.shape == (2, 41, 256, 1)
    assert np.array_equal(some.fields[..., 0], everything[[3, 1], ::5, ::4])
    np.testing.assert_allclose(some.times, 0.05 * np.arange(41), atol=1e-6)
    np.testing.assert_allclose(some.coordinates[0], (4 * np.arange(256) + 0.5) / 1024, atol=1e-7)


def test_a_file_that_was_strided_before_is_read_and_keeps_its_phase(genuine_data, tmp_path):
    """The most common way to shrink one: x[::4]. Its points are not the centres of their cells."""
    strided = tmp_path / "strided.hdf5"
    with h5py.File(genuine_path(genuine_data, GENUINE[0])) as file, h5py.File(strided, "w") as thinned:
        thinned["tensor"] = file["tensor"][:, :, ::4]
        thinned["x-coordinate"], thinned["t-coordinate"] = file["x-coordinate"][::4], file["t-coordinate"][:]
        thinned.attrs.update(file.attrs)
    options = {"time_stride": 5}
    once = read(strided, np.array([3, 1]), space_stride=2, **options)
    at_once = read(genuine_path(genuine_data, GENUINE[0]), np.array([3, 1]), space_stride=8, **options)
    assert np.array_equal(once.fields, at_once.fields)
    assert np.array_equal(once.coordinates[0], at_once.coordinates[0])
    assert once.coordinates[0][0] == pytest.approx(0.5 / 1024)


def test_genuine_darcy_rows_are_two_frames(genuine_data):
    path = genuine_path(genuine_data, GENUINE[4])
    with h5py.File(path, "r") as file:
        a, u = file["nu"][:], file["tensor"][:, 0]
    some = read_trajectories(path, [1, 0], problem="darcy2d", space_stride=2)
    assert some.names == ("a", "u")
    assert np.array_equal(some.fields[:, 0, ..., 0], a[[1, 0], ::2, ::2])
    assert np.array_equal(some.fields[:, 1, ..., 0], a[[1, 0], ::2, ::2])
    assert np.array_equal(some.fields[:, 1, ..., 1], u[[1, 0], ::2, ::2])
    assert not some.fields[:, 0, ..., 1].any()
    assert some.known.tolist() == [[True, False], [True, True]]


# Reading


def test_what_was_written_is_described_and_read(case):
    written, path = case
    name = written.problem.name
    described = inspect(path, problem=name)
    some = read_trajectories(path, np.arange(ROWS), problem=name)
    assert np.array_equal(some.fields, written.primitive)
    assert some.fields.dtype == np.float32
    assert some.names == tuple(field.name for field in written.problem.fields)
    assert described.rows == ROWS
    assert described.grid == tuple(map(len, written.coordinates))
    assert described.frames == some.fields.shape[1] == len(described.times) == len(some.times)
    for found in (described, some):
        assert found.parameters == pytest.approx(written.parameters)
        assert found.boundary == written.boundary
        for axis, expected in zip(found.coordinates, written.coordinates, strict=True):
            np.testing.assert_allclose(axis, expected, atol=1e-6)
    assert some.known.all() == (not written.problem.is_map)


def test_strides_and_order_for_every_problem(case):
    written, path = case
    rows = [4, 0, 4, 6]
    strides = {"space_stride": 2} | ({} if written.problem.is_map else {"time_stride": 2})
    some = read_trajectories(path, rows, problem=written.problem.name, **strides)
    expected = written.primitive[rows][:, :: strides.get("time_stride", 1)]
    for axis in range(len(written.problem.axes)):
        expected = np.take(expected, np.arange(0, expected.shape[2 + axis], 2), axis=2 + axis)
    assert np.array_equal(some.fields, expected)
    assert [len(axis) for axis in some.coordinates] == list(expected.shape[2:-1])


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
        BURGERS.write(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdebench_rows, "READ_BYTES", piece * FRAMES * POINTS * 4)
        some = read(path, np.array(rows, dtype=np.int64), space_stride=space_stride, time_stride=time_stride)
    assert some.fields.dtype == np.float32
    assert np.array_equal(some.fields, FIELDS[rows, ::time_stride, ::space_stride])
    assert some.rows.tolist() == rows
    assert np.array_equal(some.times, TIMES[::time_stride])
    assert np.array_equal(some.coordinates[0], COORDINATES[::space_stride])


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
    monkeypatch.setattr(pdebench_rows, "READ_BYTES", piece * FRAMES * POINTS * 4)
    read(path, np.array(rows))
    assert selections == expected


def test_frames_are_counted_after_striding(path):
    some = read(path, np.arange(2), time_stride=3, frames=2)  # 3 does not divide 4 intervals
    assert np.array_equal(some.fields, FIELDS[:2, [0, 3]])
    assert some.times.tolist() == [0.0, 0.75]


def test_unknown_datasets_and_attributes_are_ignored(path):
    with h5py.File(path, "a") as file:
        file["notes"] = np.arange(3)
        file.create_group("extra/deep")
        file.attrs["description"] = "undocumented"
    assert describe(path).rows == ROWS
    assert np.array_equal(read(path, np.arange(ROWS)).fields, FIELDS)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if not PROBLEMS[name].is_map])
def test_the_surplus_stamp_may_be_absent(tmp_path, name):
    written = small(name)
    path = written.write(tmp_path / "file.hdf5")
    replace(path, "t-coordinate", single(TIMES))
    assert np.array_equal(inspect(path, problem=name).times, TIMES)


def test_description_is_not_to_be_changed(path):
    with pytest.raises(ValueError, match="read-only"):
        describe(path).times[0] = 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 5, 8)},
        {"chunks": (1, 3, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"maxshape": (None, None, None)},
    ],
)
def test_chunks_and_compression_are_decoded(path, options):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_dataset("tensor", data=FIELDS[..., 0], **options)
    assert np.array_equal(read(path, [6, 0, 1]).fields, FIELDS[[6, 0, 1]])


# Conserved variables


def test_conserved_variables_are_those_of_the_primitive_ones(tmp_path):
    written = small("compressible1d")
    path = written.write(tmp_path / "flow.hdf5")
    some = read_trajectories(
        path, [3, 1], problem="compressible1d", variables="conserved", time_stride=2, space_stride=4
    )
    density, velocity, pressure = np.moveaxis(written.fields[[3, 1], ::2, ::4].astype(np.float64), -1, 0)
    assert some.names == ("density", "momentum", "energy")
    assert some.fields.dtype == np.float32
    assert np.array_equal(some.fields[..., 0], density.astype(np.float32))
    np.testing.assert_allclose(some.fields[..., 1], density * velocity, rtol=1e-6)
    np.testing.assert_allclose(some.fields[..., 2], 1.5 * pressure + density * velocity**2 / 2, rtol=1e-6)


def test_energy_of_a_gas_at_rest_is_its_pressure_over_gamma_minus_one():
    assert GAMMA == 5 / 3
    state = to_conserved(np.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(state, [2.0, 0.0, 1.5], rtol=1e-15)
    moving = to_conserved(np.array([2.0, 3.0, 1.0]))
    np.testing.assert_allclose(moving, [2.0, 6.0, 1.5 + 9.0], rtol=1e-15)


def test_variables_that_a_problem_does_not_have(path):
    with pytest.raises(ValueError, match="no conserved variables"):
        read(path, [0], variables="conserved")
