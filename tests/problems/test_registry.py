"""The registry says each thing once, and agrees with the genuine files."""

import re

import h5py
import pytest

from ups.problems import PROBLEMS
from ups.problems.published import PUBLISHED


def test_thirty_files_with_unique_ids_and_sums():
    files = list(PUBLISHED.values())
    assert len(files) == 30
    assert len({file.file_id for file in files}) == len({file.md5 for file in files}) == 30
    assert all(re.fullmatch(r"[0-9a-f]{32}", file.md5) for file in files)
    counts = {name: sum(file.problem_name == name for file in files) for name in PROBLEMS}
    assert counts == {"burgers1d": 12, "advection1d": 8, "darcy2d": 5, "compressible1d": 5}


def test_files_keep_to_their_problem():
    for file in PUBLISHED.values():
        problem = file.problem
        assert file.boundary in problem.boundaries
        assert set(file.parameters) == {parameter.name for parameter in problem.parameters}
        assert (file.frames == 1) == problem.is_map


def test_every_field_has_its_array_and_unit():
    for problem in PROBLEMS.values():
        assert len(problem.fields) == len(problem.arrays)
        assert len(problem.axes) == len(problem.domain)
        for field in (*problem.fields, *problem.conserved_fields):
            assert field.unit
        if problem.conserved_fields:
            assert len(problem.conserved_fields) == len(problem.fields)


def test_an_amplitude_that_some_fields_do_not_have_is_of_a_field_or_parameter():
    """The operator takes one out of the whole state; of some fields the frame does, by what they are proportional to."""
    for problem in PROBLEMS.values():
        declared, names = problem.symmetries, {field.name for field in problem.fields}
        assert set(declared.scaling) <= names
        if set(declared.scaling) < names and declared.scaling:
            assert declared.scaled_by in {*declared.scaling, *(each.name for each in problem.parameters)}


def test_predicted_sizes_follow_from_the_shapes():
    """A file is its arrays and a few kilobytes; a slip in a size or a shape breaks this."""
    for file in PUBLISHED.values():
        if file.bytes is None:
            continue
        values = file.rows * file.frames * file.resolution ** len(file.problem.axes)
        arrays = len(file.problem.arrays)
        assert 0 < file.bytes - 4 * values * arrays < 10_000


@pytest.mark.parametrize(
    "name",
    [
        "1D_Burgers_Sols_Nu0.001",
        "1D_Burgers_Sols_Nu0.01",
        "1D_Advection_Sols_beta0.1",
        "1D_Advection_Sols_beta1.0",
        "2D_DarcyFlow_beta1.0_Train",
    ],
)
def test_genuine_rows_have_the_declared_layout(genuine_data, name):
    published = PUBLISHED[name]
    problem = published.problem
    (path,) = genuine_data.glob(f"{name}.rows*.hdf5")
    with h5py.File(path) as file:
        for array in problem.arrays:
            assert file[array.key].ndim == len(array.axes)
            lengths = dict(zip(array.axes, file[array.key].shape, strict=True))
            assert all(lengths[axis] == published.resolution for axis in problem.axes)
            assert lengths.get("time", 1) == published.frames
        for parameter in problem.parameters:
            assert file.attrs[parameter.attribute] == pytest.approx(published.parameters[parameter.name])
