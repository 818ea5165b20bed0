"""`ups data` as a user meets it: list, info, fetch from a faulty server, generate, check."""

import json

import h5py
import numpy as np
import pytest
from command_line import ups
from faulty_server import FaultyServer, says, serve
from small_files import small

from ups.data.splits import generated_rows
from ups.problems.problem import ORIGINAL_ROWS
from ups.problems.published import PUBLISHED

NAME = "1D_Burgers_Sols_Nu0.01"


@pytest.fixture(scope="module")
def published_rows(tmp_path_factory) -> bytes:
    """A file in the published layout; the published name, with fewer rows and points."""
    path = tmp_path_factory.mktemp("published") / f"{NAME}.hdf5"
    return small("burgers1d").write(path, parameters={"nu": 0.01}).read_bytes()


def test_list_shows_all_files_and_which_are_here(answer, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{NAME}.rows-0-3.hdf5").write_bytes(b"")
    code, listed, _ = answer("data", "list", "--json", "--root", tmp_path)
    assert code == 0
    records = {record["name"]: record for record in json.loads(listed)}
    assert records.keys() == PUBLISHED.keys()
    assert records[NAME]["here"] == ["rows 0-3"]
    assert records[NAME]["md5"] == PUBLISHED[NAME].md5
    _, table, _ = answer("data", "list", "--problem", "darcy2d")
    assert "2D_DarcyFlow_beta1.0_Train" in table
    assert "Burgers" not in table


def test_info_tells_equation_units_and_layout(answer):
    _, told, _ = answer("data", "info", "1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train", "--json")
    record = json.loads(told)
    assert record["darus_id"] == 164668
    assert record["equation"]["fields"]["density"] == "mass/length"
    assert record["equation"]["domain"] == {"x": [-1.0, 1.0]}
    assert "-div(a grad u) = beta" in answer("data", "info", "darcy2d")[1]


def test_an_unknown_name_is_answered_with_the_nearest(answer):
    code, _, told = answer("data", "fetch", "1D_Burgers_Sols_Nu0.013")
    assert code == 2
    assert "did you mean 1D_Burgers_Sols_Nu0.01?" in told


@pytest.mark.slow
def test_rows_are_fetched_from_a_server_that_cuts_and_fails(tmp_path, published_rows):
    with FaultyServer(published_rows, script=[says(503), serve(stop=100)]) as server:
        address = f"http://127.0.0.1:{server.port}/{{name}}"
        arguments = ("data", "fetch", NAME, "--rows", "1:3", "--rows", "5:6", "--address", address)
        done = ups(*arguments, "--json", "--root", tmp_path)
        assert done.returncode == 0, done.stderr
        asked = len(server.requests)
        again = ups(*arguments, "--root", tmp_path)
        assert again.returncode == 0, again.stderr
        assert len(server.requests) == asked, "what is here is not fetched again"
    (record,) = json.loads(done.stdout)
    with h5py.File(record["path"]) as file:
        assert file["original-rows"][:].tolist() == [1, 2, 5]
        np.testing.assert_array_equal(file["tensor"][:], small("burgers1d").fields[[1, 2, 5], ..., 0])
    assert not record["md5_checked"]


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path, published_rows):
    with FaultyServer(published_rows) as server:
        address = f"http://127.0.0.1:{server.port}/{{name}}"
        done = ups("data", "fetch", NAME, "--address", address, "--root", tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "downloads").glob("*.hdf5"))


@pytest.mark.parametrize("rows", ["5:2", "3", "a:b", "-1:4"])
def test_ranges_that_are_none_are_refused(answer, rows):
    code, _, told = answer("data", "fetch", NAME, f"--rows={rows}")
    assert code == 2
    assert "START:STOP" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("equation", "settings"),
    [
        ("burgers1d", ("nu=0.1", "resolution=32", "frames=3")),
        ("advection1d", ("beta=0.4", "resolution=32", "frames=3")),
        ("darcy2d", ("beta=1", "resolution=16")),
        ("compressible1d", ("eta=0.1", "resolution=32", "frames=3", "boundary=outflow")),
    ],
)
def test_a_generated_file_passes_the_check(tmp_path, equation, settings):
    path = tmp_path / "made.hdf5"
    options = [word for setting in settings for word in ("--set", setting)]
    made = ups("data", "generate", equation, path, "--rows", "5", *options, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["rows"] == 5
    checked = ups("data", "check", path, "--json", "--root", tmp_path)
    assert checked.returncode == 0, checked.stderr
    (record,) = json.loads(checked.stdout)
    assert record["problem"] == equation
    assert record["bad_rows"]["count"] == 0
    assert record["solver_distance"]["mean"] < (1.0 if equation == "darcy2d" else 1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["downloads", "made.hdf5"]


@pytest.mark.slow
def test_a_generated_file_may_hold_the_trajectories_of_a_split(tmp_path):
    fields = {}
    for name, options in {"all": ("--rows", "6"), "test": ("--rows", "2", "--split", "test")}.items():
        path, settings = tmp_path / f"{name}.hdf5", ("nu=0.1", "resolution=32", "frames=3")
        options = (*options, *(word for setting in settings for word in ("--set", setting)))
        made = ups("data", "generate", "burgers1d", path, *options)
        assert made.returncode == 0, made.stderr
        with h5py.File(path) as file:
            fields[name] = file["tensor"][:], file[ORIGINAL_ROWS][:]
    rows = generated_rows("test", 2)
    np.testing.assert_array_equal(fields["test"][1], rows)
    np.testing.assert_array_equal(fields["test"][0], fields["all"][0][rows])


@pytest.mark.slow
def test_generate_never_overwrites(tmp_path):
    path = tmp_path / "mine.hdf5"
    path.write_text("mine")
    done = ups("data", "generate", "burgers1d", path, "--set", "nu=0.1", "--set", "resolution=32")
    assert done.returncode == 3
    assert "exists already" in done.stderr
    assert path.read_text() == "mine"


def test_wrong_settings_name_the_key(tmp_path):
    done = ups("data", "generate", "burgers1d", tmp_path / "x.hdf5", "--set", "viscosity=0.1")
    assert done.returncode == 2
    assert "\n  nu: required key is missing" in done.stderr
    assert "\n  viscosity: unknown key; known keys here: amplitude, equation," in done.stderr
    done = ups("data", "generate", "burgers1d", tmp_path / "x.hdf5", "--set", "nu=1", "--set", "source=mix")
    assert "\n  source: must be 'generated' (got 'mix')" in done.stderr
    done = ups("data", "generate", "burgers1d", tmp_path / "x.hdf5", "--set", "nu=[1")
    assert done.returncode == 2
    assert done.stderr.startswith("configuration error: --set nu: is not valid YAML: ")
    # Numbers are those of configurations: YAML 1.1 would read 90 here.
    done = ups(
        "data", "generate", "burgers1d", tmp_path / "x.hdf5", "--set", "nu=1e-2", "--set", "frames=1:30"
    )
    assert done.returncode == 2
    assert "\n  frames: must be a valid integer" in done.stderr
    assert "\n  nu: " not in done.stderr


def test_a_malformed_file_is_told_apart_from_good_ones(tmp_path):
    good = small("advection1d").write(tmp_path / "good.hdf5")
    bad = tmp_path / "bad.hdf5"
    bad.write_bytes(good.read_bytes()[:-100])
    done = ups("data", "check", good, bad, "--root", tmp_path, COLUMNS="170")
    assert done.returncode == 3
    assert "good.hdf5  ok" in " ".join(done.stdout.split("\n"))
    assert "bad.hdf5: DataError" in done.stdout
    assert "1 of 2 files failed" in done.stderr
