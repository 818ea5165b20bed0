"""Whatever is wrong with a file is named; its parameters and boundary come from it or from the caller.

Every kind of mutation of whole files: test_malformed.py.
"""

import io
import os
import struct

import h5py
import numpy as np
import pytest
from small_files import POINTS, ROWS, small

from ups.data.hdf5 import CheckedFile
from ups.data.hdf5_attributes import _messages
from ups.data.pdebench import inspect, read_trajectories
from ups.errors import DataError
from ups.problems import PROBLEMS

BURGERS = small("burgers1d")
FIELDS, TIMES, COORDINATES = BURGERS.fields, BURGERS.times, BURGERS.coordinates[0]


@pytest.fixture
def path(tmp_path):
    """A well-formed Burgers file of ours."""
    return BURGERS.write(tmp_path / "burgers.hdf5")


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


# Malformed files: (how to spoil, what the message must say)

VALUES = FIELDS[..., 0]
SPOILED = {
    "old version": (
        lambda p: replace(p, "x-coordinate", single(2 * COORDINATES - 1)),
        r"before October 2023.*4 pi",
    ),
    "beyond its cell": (
        lambda p: replace(p, "x-coordinate", single(COORDINATES + 0.6 / POINTS)),
        "x-coordinate.*equal cells",
    ),
    "not uniform": (
        lambda p: replace(p, "x-coordinate", single(COORDINATES**1.1)),
        "x-coordinate.*equal cells",
    ),
    "other domain": (
        lambda p: replace(p, "x-coordinate", single(2 * COORDINATES)),
        "x-coordinate.*equal cells",
    ),
    "x has NaN": (lambda p: replace(p, "x-coordinate", single(COORDINATES * np.nan)), "x-coordinate.*nan"),
    "x too long": (
        lambda p: replace(p, "x-coordinate", single((np.arange(9) + 0.5) / 9)),
        "9 entries for 8 points",
    ),
    "x has two axes": (lambda p: replace(p, "x-coordinate", single(COORDINATES[None])), r"shape \(1, 8\)"),
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
    "t too short": (lambda p: replace(p, "t-coordinate", single(TIMES[:-1])), "4 stamps for 5 frames"),
    "t too long": (lambda p: replace(p, "t-coordinate", single(np.arange(7) / 4)), "7 stamps for 5 frames"),
    "t not uniform": (lambda p: replace(p, "t-coordinate", single(TIMES**2)), "t-coordinate.*equally spaced"),
    "t backwards": (lambda p: replace(p, "t-coordinate", single(-TIMES)), "t-coordinate.*does not increase"),
    "tensor has four axes": (lambda p: replace(p, "tensor", VALUES[..., None]), r"\(7, 5, 8, 1\)"),
    "tensor is float64": (lambda p: replace(p, "tensor", VALUES.astype(np.float64)), "tensor.*float64"),
    "tensor is integer": (lambda p: replace(p, "tensor", VALUES.astype(np.int32)), "tensor.*int32"),
    "tensor is big-endian": (lambda p: replace(p, "tensor", VALUES.astype(">f4")), "tensor.*little-endian"),
    "tensor is empty": (lambda p: replace(p, "tensor", VALUES[:0]), "tensor.*empty"),
    "tensor is a link": (
        lambda p: replace(p, "tensor", h5py.ExternalLink("/dev/zero", "/tensor")),
        "no dataset tensor, only a link",
    ),
    "one frame": (
        lambda p: (replace(p, "tensor", VALUES[:, :1]), replace(p, "t-coordinate", single(TIMES[:2]))),
        "two frames or more",
    ),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_malformed_layouts_are_named(path, spoiled):
    spoil, message = SPOILED[spoiled]
    spoil(path)
    for use in (describe, lambda path: read(path, np.arange(2))):
        with pytest.raises(DataError, match=message) as caught:
            use(path)
        assert str(path) in str(caught.value)
        assert "fix:" in str(caught.value)


def test_the_arrays_of_a_file_have_equal_axes(tmp_path):
    path = small("compressible1d").write(tmp_path / "flow.hdf5")
    with h5py.File(path, "a") as file:
        shorter = file["pressure"][:, :-1]
    replace(path, "pressure", shorter)
    with pytest.raises(DataError, match=r"dataset pressure: has shape \(7, 4, 8\), .* with 5 along time"):
        inspect(path, problem="compressible1d")


def test_the_compressible_domain_is_not_the_old_version_of_another(tmp_path):
    path = small("compressible1d").write(tmp_path / "flow.hdf5")
    assert inspect(path, problem="compressible1d").coordinates[0][0] < 0
    replace(path, "x-coordinate", single(COORDINATES))
    with pytest.raises(DataError, match=r"equal cells of the domain from -1 to 1"):
        inspect(path, problem="compressible1d")


def test_a_dataset_that_was_never_written_is_not_read_as_zeros(path):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_dataset("tensor", VALUES.shape, dtype="<f4")
    with pytest.raises(DataError, match="never written"):
        describe(path)


def test_chunks_that_were_never_written_are_not_read_as_zeros(path):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_dataset("tensor", VALUES.shape, dtype="<f4", chunks=(1, 5, 8))[:6] = VALUES[:6]
    with pytest.raises(DataError, match=r"in 7 chunks, and the file .* does not hold them"):
        describe(path)


def test_a_small_file_does_not_decode_to_gigabytes(path):
    replace(path, "tensor", None)
    with h5py.File(path, "a") as file:
        bomb = file.create_dataset(
            "tensor", (2**20, 5, 8), dtype="<f4", chunks=(2**19, 5, 8), compression="gzip"
        )
        bomb[:1] = 0
    with pytest.raises(DataError, match="chunks of 83886080 bytes, and at most 1048576 are decoded"):
        describe(path)


@pytest.mark.parametrize("chunks", [None, (7, 5, 8)])
def test_what_a_dataset_declares_is_held_against_the_bytes_there_are(path, tmp_path, chunks):
    """Recent HDF5 notices by itself where a header tells too much; the check does not rely on it."""
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_dataset("tensor", data=VALUES, chunks=chunks)
    shorter = tmp_path / "shorter.hdf5"
    shorter.write_bytes(path.read_bytes()[:1100])
    with h5py.File(path) as file, pytest.raises(DataError, match=r"shorter.*, dataset tensor: .*does not"):
        CheckedFile(file, shorter).array("tensor").read()


def test_a_group_is_no_dataset(path):
    with h5py.File(path, "a") as file:
        del file["tensor"]
        file.create_group("tensor")
    with pytest.raises(DataError, match="no dataset tensor, only another object"):
        describe(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(case, kept):
    written, path = case
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(DataError, match="not a complete HDF5 file") as caught:
        inspect(path, problem=written.problem.name)
    assert "MD5" in str(caught.value)


def test_other_files_and_missing_files_are_refused(tmp_path):
    other = tmp_path / "page.hdf5"
    other.write_text("<html>503 Service Unavailable</html>")
    with pytest.raises(DataError, match="not a complete HDF5 file"):
        describe(other)
    for absent in (tmp_path / "absent.hdf5", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            describe(absent)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e12])
def test_values_that_no_state_has_name_row_frame_and_dataset(case, value):
    written, path = case
    name, key = written.problem.name, written.problem.arrays[-1].key
    with h5py.File(path, "a") as file:
        file[key][(5, *(length - 1 for length in file[key].shape[1:]))] = value
    at = "" if written.problem.is_map else " at frame 4"
    with pytest.raises(DataError, match=f"dataset {key}: row 5 holds .*{at}, which is"):
        read_trajectories(path, np.array([6, 5, 0]), problem=name)
    others = read_trajectories(path, np.array([6, 4, 0]), problem=name)
    assert len(others.fields) == 3  # the other rows are good


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize(("name", "key"), [("darcy2d", "nu"), ("compressible1d", "density")])
def test_positive_fields_are_positive(tmp_path, name, key, value):
    path = small(name).write(tmp_path / "file.hdf5")
    with h5py.File(path, "a") as file:
        file[key][2, ..., 3] = value
    with pytest.raises(DataError, match=f"dataset {key}: row 2 holds .*, which is positive"):
        read_trajectories(path, [2], problem=name)


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
        read(path, arguments.pop("rows"), **arguments)
    assert str(path) in str(caught.value)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize("arguments", [{"time_stride": 2}, {"frames": 1}, {"space_stride": 4}])
def test_a_map_has_no_time_and_all_axes_are_strided(tmp_path, arguments):
    path = small("darcy2d").write(tmp_path / "darcy.hdf5")  # 8 by 10 points
    message = "does not divide the 10 points along y" if "space_stride" in arguments else "it has no time"
    with pytest.raises(DataError, match=message):
        read_trajectories(path, [0], problem="darcy2d", **arguments)


@pytest.mark.parametrize("rows", [[0.0], [[0]], [True]])
def test_rows_must_be_row_numbers(path, rows):
    with pytest.raises(ValueError, match="rows must be integers"):
        read(path, np.array(rows))


# The equation's parameters, its boundary, and which problem it is


def test_the_parameter_comes_from_the_attribute_or_the_caller_never_from_the_name(path):
    renamed = path.rename(path.with_name("1D_Burgers_Sols_Nu0.5.hdf5"))
    assert describe(renamed).parameters == {"nu": 0.01}
    assert describe(renamed, parameters={"nu": 0.01}).parameters == {"nu": 0.01}
    with pytest.raises(DataError, match=r"attribute Nu is 0.01, but 0.5 was expected"):
        describe(renamed, parameters={"nu": 0.5})
    with h5py.File(renamed, "a") as file:
        del file.attrs["Nu"]
    with pytest.raises(DataError, match=r'no attribute Nu(.|\n)*attrs\["Nu"\] = value'):
        describe(renamed)
    assert describe(renamed, parameters={"nu": 0.25}).parameters == {"nu": 0.25}
    assert read(renamed, [0], parameters={"nu": 0.25}).parameters == {"nu": 0.25}


def test_each_parameter_has_its_own_source(tmp_path):
    path = small("compressible1d").write(tmp_path / "flow.hdf5")
    with h5py.File(path, "a") as file:
        del file.attrs["zeta"]
    with pytest.raises(DataError, match="no attribute zeta"):
        inspect(path, problem="compressible1d")
    described = inspect(path, problem="compressible1d", parameters={"zeta": 0.5})
    assert described.parameters == {"eta": 0.01, "zeta": 0.5}


@pytest.mark.parametrize("value", [np.nan, -1.0, "0.01", np.array([0.1, 0.2]), h5py.Empty("f")])
def test_a_parameter_that_is_no_number_is_refused(path, value):
    with h5py.File(path, "a") as file:
        file.attrs["Nu"] = value
    with pytest.raises(DataError, match="Nu is"):
        describe(path)


def without_boundary(path):
    with h5py.File(path, "a") as file:
        del file.attrs["boundary"]
    return path


def test_the_boundary_comes_from_the_attribute_the_caller_or_the_problem(case):
    written, path = case
    name = written.problem.name
    with pytest.raises(DataError, match="boundary that was given is 'reflecting'"):
        inspect(path, problem=name, boundary="reflecting")
    without_boundary(path)
    if len(written.problem.boundaries) == 1:
        assert inspect(path, problem=name).boundary == written.boundary
    else:
        with pytest.raises(
            DataError, match=r'has no attribute boundary(.|\n)*attrs\["boundary"\] = "periodic"'
        ):
            inspect(path, problem=name)
    for boundary in written.problem.boundaries:
        assert read_trajectories(path, [0], problem=name, boundary=boundary).boundary == boundary


def test_a_boundary_that_contradicts_the_file_is_refused(tmp_path):
    path = small("compressible1d").write(tmp_path / "flow.hdf5")
    with pytest.raises(DataError, match="attribute boundary is outflow, but periodic was expected"):
        inspect(path, problem="compressible1d", boundary="periodic")
    with h5py.File(path, "a") as file:
        file.attrs["boundary"] = np.bytes_("dirichlet")
    with pytest.raises(DataError, match="attribute boundary is 'dirichlet'"):
        inspect(path, problem="compressible1d")


def with_texts(path, version="earliest"):
    """The file again, with its attributes as h5py writes them by itself."""
    with h5py.File(path) as old, h5py.File(path.with_name("text.hdf5"), "w", libver=version) as file:
        for name in old:
            old.copy(name, file)
        file.attrs.update({"problem": "burgers1d", "boundary": "periodic", "Nu": 0.01})
    return path.with_name("text.hdf5")


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_text_of_variable_length_is_read(path, version):
    assert describe(with_texts(path, version)).boundary == "periodic"


@pytest.mark.parametrize("problem", ["", "darcy2d" * 1000, "1D B\u00fcrgers"])
def test_other_texts_of_variable_length_are_no_problems_name(path, problem):
    with h5py.File(path, "a") as file:
        file.attrs["problem"] = problem
    with pytest.raises(DataError, match=r"is a file of|a text of at most 1024 letters"):
        describe(path)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("free space", bytes(8)),  # HDF5 2.0 goes round in circles
        ("length", (2**31).to_bytes(4, "little")),  # and takes gigabytes
        ("heap", (2**40).to_bytes(8, "little")),
        ("index", (77).to_bytes(4, "little")),
    ],
)
def test_a_damaged_text_of_variable_length_is_refused(path, place, content):
    path = with_texts(path)
    whole = bytearray(path.read_bytes())
    heap = whole.index(b"GCOL")
    value = whole.index((8).to_bytes(4, "little") + heap.to_bytes(8, "little"), whole.index(b"boundary"))
    free = next(at for at in range(heap + 16, heap + 4096, 8) if whole[at : at + 8] == bytes(8))
    at = {"length": value, "heap": value + 4, "index": value + 12, "free space": free + 8}[place]
    whole[at : at + len(content)] = content
    path.write_bytes(whole)
    if place == "free space":  # which nothing needs
        assert describe(path).boundary == "periodic"
    else:
        with pytest.raises(DataError, match="damaged"):
            describe(path)


def test_a_header_that_leads_back_to_itself_is_refused():
    """A header of the old format, whose only message says that it goes on where it begins."""
    start = struct.pack("<BBHII4x", 1, 0, 1, 1, 24)
    message = struct.pack("<HHB3xQQ", 0x10, 16, 0, len(start), 24)
    with pytest.raises(ValueError, match="leads back to itself"):
        list(_messages(io.BytesIO(start + message), 0))


def test_a_file_of_another_problem_is_refused(path):
    with pytest.raises(
        DataError, match=r"is a file of burgers1d, not of advection1d(.|\n)*--problem of `ups data"
    ):
        inspect(path, problem="advection1d")
    with h5py.File(path, "a") as file:
        del file.attrs["problem"]
    with pytest.raises(DataError, match="no attribute beta"):
        inspect(path, problem="advection1d")
    with pytest.raises(DataError, match="burgers1d has the parameter nu, got beta"):
        describe(path, parameters={"beta": 0.1})
    with pytest.raises(ValueError, match="problem must be one of"):
        inspect(path, problem="heat1d")


def test_original_rows_are_told_and_checked(tmp_path):
    path = BURGERS.write(tmp_path / "cut.hdf5", original_rows=np.arange(ROWS)[::-1] + 1000)
    assert describe(path).original_rows.tolist() == [1006, 1005, 1004, 1003, 1002, 1001, 1000]
    for spoiled in (np.arange(ROWS - 1), np.zeros(ROWS, dtype=int), np.arange(ROWS) - 1, np.arange(7.0)):
        replace(path, "original-rows", spoiled)
        with pytest.raises(DataError, match="original-rows"):
            describe(path)
