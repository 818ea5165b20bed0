"""`ups data check`: what is found out about a file, and that a bad one does not stop the others."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from small_files import ROWS, small

from ups.data.layout import cell_centres
from ups.data.pdebench_writer import write_trajectories
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.problems import PROBLEMS
from ups.tools.check_file import check_files


def check(*paths, **request):
    asked = {"problem": None, "parameters": None, "boundary": None, "rows": None, "known": {}} | request
    records = check_files(asked | {"files": [str(path) for path in paths]})
    json.dumps(records, allow_nan=False)
    return records if len(records) > 1 else records[0]


def burgers_file(path, *, nu=0.01, told_nu=None):
    """Solved by the solver that the check compares with."""
    x = cell_centres(64, (0.0, 1.0))
    initial = torch.from_numpy(np.stack([np.sin(2 * np.pi * (x + shift)) for shift in (0, 0.3, 0.4)])).float()
    solved = solve_burgers(initial, nu=nu, frame_interval=0.05, frames=9)
    write_trajectories(
        path,
        solved[..., None].numpy(),
        0.05 * np.arange(9),
        [x],
        problem="burgers1d",
        parameters={"nu": told_nu or nu},
        boundary="periodic",
    )
    return path


# What is found out


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("1D_Burgers_Sols_Nu0.001", 3e-4),
        ("1D_Advection_Sols_beta0.1", 1e-2),
        ("2D_DarcyFlow_beta1.0_Train", 2e-3),
    ],
)
def test_genuine_rows_are_recognised_and_near_to_our_solver(genuine_data, name, largest):
    (path,) = genuine_data.glob(f"{name}.rows*.hdf5")
    record = check(path)
    assert record["error"] is None
    assert record["problem_from"] == "file name"
    assert record["bytes"] == path.stat().st_size
    assert record["md5_as_published"] is None  # not the whole file
    assert record["bad_rows"] == {"count": 0, "first": []}
    assert 1e-6 < record["solver_distance"]["largest"] < largest
    assert record["solver_distance"]["expected"]["mean"] > 0
    if "u" in record["conservation"]:
        assert record["conservation"]["u"]["largest"] < 1e-5


@pytest.mark.parametrize("name", PROBLEMS)
def test_files_of_ours_tell_what_they_are(tmp_path, name):
    written = small(name)
    record = check(written.write(tmp_path / "file.hdf5", original_rows=np.arange(ROWS) + 100))
    assert record["error"] is None
    assert (record["problem"], record["problem_from"]) == (name, "attribute")
    assert record["grid"] == [len(axis) for axis in written.coordinates]
    assert record["boundary"] == written.boundary
    assert record["original_rows"] == {"smallest": 100, "largest": 106}
    for channel, field in enumerate(written.problem.fields):
        values = written.fields[..., channel]
        expected = {"smallest": float(values.min()), "largest": float(values.max())}
        assert record["values"][field.name] == pytest.approx(expected)


def test_a_file_of_our_solver_is_reproduced_and_one_of_another_viscosity_is_not(tmp_path):
    good, wrong = check(
        burgers_file(tmp_path / "good.hdf5"), burgers_file(tmp_path / "wrong.hdf5", told_nu=0.05)
    )
    assert good["solver_distance"]["largest"] < 1e-6
    assert wrong["solver_distance"]["mean"] > 1e-2


def test_compressible_files_of_ours_are_reproduced_and_conserve(tmp_path):
    x = cell_centres(32, (-1.0, 1.0))
    wave = 1 + 0.2 * np.sin(np.pi * x)
    initial = torch.from_numpy(np.stack([wave, 0.5 * wave, wave], axis=-1)[None]).float()
    solved = solve_compressible(
        initial, eta=0.01, zeta=0.01, boundary="periodic", frame_interval=0.02, frames=6
    )
    path = tmp_path / "flow.hdf5"
    write_trajectories(
        path,
        solved.numpy(),
        0.02 * np.arange(6),
        [x],
        problem="compressible1d",
        parameters={"eta": 0.01, "zeta": 0.01},
        boundary="periodic",
    )
    record = check(path)
    assert record["solver_distance"]["largest"] < 1e-6
    assert set(record["conservation"]) == {"density", "momentum", "energy"}
    assert all(drift["largest"] < 1e-6 for drift in record["conservation"].values())
    assert np.ptp(solved[0, :, :, 1].mean(dim=1).numpy()) > 1e-6  # the mean velocity is not conserved


def test_drift_is_that_of_the_mean_over_the_first_rms(tmp_path):
    written = small("burgers1d")
    written.fields[...] = np.array([2.0, 2.0, 2.5, 2.0, 1.0])[:, None, None]
    written.fields[3] = 0.0
    record = check(written.write(tmp_path / "file.hdf5"))
    assert record["conservation"]["u"] == {"rows": ROWS - 1, "median": 0.5, "largest": 0.5}


def test_a_flow_that_leaves_the_domain_conserves_nothing(tmp_path):
    record = check(small("compressible1d").write(tmp_path / "flow.hdf5"))  # outflow
    assert record["conservation"] == "nothing is conserved here"


# What is wrong


def test_a_bad_row_is_named_and_the_others_are_described(tmp_path):
    path = burgers_file(tmp_path / "file.hdf5")
    with h5py.File(path, "r+") as file:
        file["tensor"][0, 4, 5] = np.nan
    record = check(path)
    assert record["bad_rows"] == {"count": 1, "first": [0]}
    assert record["error"]["type"] == "DataError"
    assert "row 0 holds nan at frame 4" in record["error"]["message"]
    assert record["solver_distance"]["rows"] == [1, 2]
    assert record["solver_distance"]["largest"] < 1e-6
    assert record["values"]["u"]["largest"] == pytest.approx(1.0, abs=0.01)


def test_a_file_of_bad_rows_only(tmp_path):
    path = burgers_file(tmp_path / "file.hdf5")
    with h5py.File(path, "r+") as file:
        file["tensor"][:, 0, 0] = np.inf
    record = check(path)
    assert record["bad_rows"]["count"] == 3
    assert record["values"] == {}
    assert record["conservation"] == "no row can be used"
    assert record["solver_distance"] == {"skipped": "no row can be used"}


def test_only_the_first_rows_are_read_when_asked(tmp_path):
    path = burgers_file(tmp_path / "file.hdf5")
    with h5py.File(path, "r+") as file:
        file["tensor"][2] = np.nan
    record = check(path, rows=2)
    assert record["error"] is None
    assert record["checked_rows"] == 2
    assert check(path, rows=100)["checked_rows"] == 3


def test_the_others_are_checked_behind_a_bad_file(tmp_path):
    page = tmp_path / "page.hdf5"
    page.write_text("<html>503</html>")
    first, second, third = check(page, tmp_path / "absent.hdf5", burgers_file(tmp_path / "good.hdf5"))
    assert first["error"]["type"] == second["error"]["type"] == "DataError"
    assert str(page) in first["error"]["message"]
    assert "no such file" in second["error"]["message"]
    assert first["sha256"]
    assert third["error"] is None


def test_a_flipped_bit_is_told_by_the_sum_of_the_first_use(tmp_path):
    path = burgers_file(tmp_path / "file.hdf5")
    known = {str(path): check(path)["sha256"]}
    assert check(path, known=known)["error"] is None
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    assert check(path)["error"] is None
    record = check(path, known=known)
    assert record["error"]["type"] == "IntegrityError"
    assert str(path) in record["error"]["message"]


def test_a_whole_published_file_has_the_published_sum(tmp_path):
    path = tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5"
    fields = np.ones((10_000, 2, 4, 1), dtype=np.float32)
    arguments = small("burgers1d").arguments | {"times": np.array([0.0, 0.01])}
    write_trajectories(path, fields, **(arguments | {"coordinates": [cell_centres(4, (0.0, 1.0))]}))
    record = check(path)
    assert record["error"]["type"] == "IntegrityError"
    assert "e6d9a4f62baf9a29121a816b919e2770" in record["error"]["message"]


# What it is


def without_attributes(path):
    with h5py.File(path, "r+") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    return path


def test_a_published_name_supplies_what_a_file_does_not_say(tmp_path):
    path = without_attributes(
        small("compressible1d").write(tmp_path / "1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_trans_Train.rows7.hdf5")
    )
    record = check(path)
    assert (record["problem"], record["problem_from"]) == ("compressible1d", "file name")
    assert record["boundary"] == "outflow"
    assert record["parameters"] == {"eta": 1e-8, "zeta": 1e-8}
    assert "skipped" in record["solver_distance"]


def test_a_published_name_must_not_contradict_the_file(tmp_path):
    path = burgers_file(tmp_path / "1D_Burgers_Sols_Nu0.4.rows3.hdf5")
    assert "attribute Nu is 0.01, but 0.4 was expected" in check(path)["error"]["message"]


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("burgers1d", "Nu", 0.01),
        ("burgers1d", "nu", 0.01),
        ("advection1d", "beta", 0.4),
        ("darcy2d", "beta", 1.0),
    ],
)
def test_arrays_and_the_equations_number_say_what_a_nameless_file_is(tmp_path, name, attribute, value):
    path = without_attributes(small(name).write(tmp_path / "mine.hdf5"))
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    record = check(path)
    assert (record["problem"], record["problem_from"]) == (name, "arrays and parameters")
    assert list(record["parameters"].values()) == [value]


def test_what_may_be_two_problems_is_asked_for(tmp_path):
    path = without_attributes(burgers_file(tmp_path / "mine.hdf5"))
    with h5py.File(path, "r+") as file:
        file.attrs.update({"nu": 0.01, "beta": 0.4})
    message = check(path)["error"]["message"]
    assert "has the arrays and parameters of advection1d and of burgers1d" in message
    assert "pass --problem" in message
    with h5py.File(path, "r+") as file:
        file.attrs["Nu"] = 0.02
    assert "attributes Nu and nu are 0.02 and 0.01" in check(path, problem="burgers1d")["error"]["message"]


def test_an_unknown_file_needs_to_be_told_its_problem(tmp_path):
    path = without_attributes(burgers_file(tmp_path / "mine.hdf5"))
    assert "pass --problem" in check(path)["error"]["message"]
    assert "no attribute Nu" in check(path, problem="burgers1d")["error"]["message"]
    record = check(path, problem="burgers1d", parameters={"nu": 0.01})
    assert record["error"] is None
    assert record["problem_from"] == "request"
    assert record["solver_distance"]["expected"]["parameter"] == 0.01


def test_a_file_of_another_problem_than_was_said(tmp_path):
    record = check(burgers_file(tmp_path / "file.hdf5"), problem="advection1d")
    assert "is a file of burgers1d" in record["error"]["message"]


def test_absurd_fields_are_not_solved_for_ever(tmp_path):
    written = small("burgers1d")
    written.fields[...] *= 1e9
    record = check(written.write(tmp_path / "file.hdf5"))
    assert record["error"] is None
    assert "steps" in record["solver_distance"]["skipped"]


def test_the_process_answers_a_request(tmp_path):
    path = burgers_file(tmp_path / "file.hdf5")
    request = {"files": [str(path)], "problem": None, "parameters": None, "boundary": None, "rows": None}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "ups.tools.check_file", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "checked 1/1" in done.stdout
    (record,) = json.loads((tmp_path / "outcome.json").read_text())["summary"]
    assert record["error"] is None
