"""Rows of remote files against a real server that errs: what is written equals slicing the whole file."""

import hashlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from faulty_server import FaultyServer, Step, raw, redirects, says, serve

from ups.data.pdebench import read_trajectories
from ups.errors import DataError, IntegrityError, PreflightError, StorageError, UpsError
from ups.transfer.remote_rows import fetch_rows
from ups.transfer.retry import RetryPolicy

QUICK = RetryPolicy(deadline_seconds=20, attempts=4, inactivity_seconds=2, backoff_seconds=0.01)
ROWS, FRAMES, POINTS = 50, 21, 256
ROW = 4 * FRAMES * POINTS


def write_burgers(path: Path, **create: Any) -> Path:
    """PDEBench's layout: the array contiguous, one time stamp too many, and what nobody documents."""
    generator = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "tensor", data=generator.random((ROWS, FRAMES, POINTS), dtype=np.float32), **create
        )
        file["x-coordinate"] = ((np.arange(POINTS) + 0.5) / POINTS).astype("f4")
        file["t-coordinate"] = (np.arange(FRAMES + 1) / 100).astype("f4")
        file["x-coordinate"].attrs["unit"] = "1"
        file["notes"] = np.array([b"a", b"bc"])
        file["table"] = np.zeros((2, 2))
        file.create_group("group")["x"] = np.arange(3)
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
        file.attrs["Nu"] = np.float32(0.01)
        file.attrs["text"] = "viscosity ν"
        file.attrs["bytes"] = np.bytes_(b"abc")
        file.attrs["list"] = np.arange(4, dtype=">i2")
        file.attrs["empty"] = h5py.Empty("f8")
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_burgers(tmp_path_factory.mktemp("original") / "burgers.hdf5")


@pytest.fixture(scope="module")
def body(original) -> bytes:
    return original.read_bytes()


@pytest.fixture(scope="module")
def header_requests(body, tmp_path_factory) -> int:
    """Requests until the header is read, after which come those for rows."""
    with FaultyServer(body) as server:
        fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path_factory.mktemp("x") / "x", policy=QUICK)
        return len(server.requests) - 1


def check(
    done: dict[str, Any], path: Path, original: Path, rows: list[int], keys: tuple[str, ...] = ("tensor",)
) -> None:
    """The new file equals the slices of the old one, and the record is true."""
    content = original.read_bytes()
    with h5py.File(original) as whole, h5py.File(path) as part:
        for key in keys:
            np.testing.assert_array_equal(part[key][:], whole[key][:][rows])
            assert part[key].dtype == np.dtype("<f4")
            assert part[key].chunks is None
        assert part["original-rows"].dtype == np.int64
        assert part["original-rows"][:].tolist() == rows
        coordinates = {
            name
            for name in whole
            if isinstance(whole.get(name, getlink=True), h5py.HardLink)
            and isinstance(whole[name], h5py.Dataset)
            and whole[name].ndim == 1
        }
        assert set(part) == coordinates | set(keys) | {"original-rows"}
        for name in coordinates:
            assert part[name].dtype == whole[name].dtype
            np.testing.assert_array_equal(part[name][:], whole[name][:])
            assert dict(part[name].attrs) == dict(whole[name].attrs)
        assert list(part.attrs) == list(whole.attrs)
        for name, value in whole.attrs.items():
            assert part.attrs.get_id(name).dtype == whole.attrs.get_id(name).dtype
            if not isinstance(value, h5py.Empty):
                np.testing.assert_array_equal(part.attrs[name], value)
        assert (done["rows"], done["total_rows"]) == (len(rows), len(whole[keys[0]]))
    for piece in done["ranges"]:
        stored = content[piece["offset"] : piece["offset"] + piece["bytes"]]
        assert hashlib.sha256(stored).hexdigest() == piece["sha256"]
    assert sum(piece["rows"][1] - piece["rows"][0] for piece in done["ranges"]) == len(rows) * len(keys)
    assert {name.name for name in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


def test_rows_equal_the_slices_of_the_whole_file_and_nothing_else_is_fetched(tmp_path, original, body):
    reports = []
    with FaultyServer(body) as server:
        done = fetch_rows(
            server.address, ["tensor"], [(40, 45), (3, 4), (4, 6)], tmp_path / "x",
            progress=lambda *n: reports.append(n), policy=QUICK,
        )  # fmt: skip
        with h5py.File(original) as file:
            offset = file["tensor"].id.get_offset()
        asked = [(offset + a * ROW, offset + b * ROW - 1) for a, b in ((3, 4), (4, 6), (40, 45))]
        assert server.ranges[-3:] == [f"bytes={first}-{last}" for first, last in asked]
        assert all(request.range for request in server.requests)
    check(done, tmp_path / "x", original, [3, 4, 5, 40, 41, 42, 43, 44])
    assert [piece["rows"] for piece in done["ranges"]] == [[3, 4], [4, 6], [40, 45]]
    assert done["etag"] == '"v1"'
    assert reports[-1] == (8 * ROW, 8 * ROW)


def test_a_file_address_works_the_same(tmp_path, original):
    done = fetch_rows(original.as_uri(), ["tensor"], [(49, 50), (0, 2)], tmp_path / "x", policy=QUICK)
    check(done, tmp_path / "x", original, [0, 1, 49])
    assert done["etag"] is None


@pytest.mark.parametrize("keys", [("density", "Vx", "pressure"), ("pressure",)])
def test_several_arrays_keep_their_rows_together(tmp_path, keys):
    original = tmp_path / "o" / "cfd.hdf5"
    original.parent.mkdir()
    generator = np.random.default_rng(2)
    with h5py.File(original, "w", userblock_size=512) as file:
        for key in ("density", "Vx", "pressure"):
            file[key] = generator.random((9, 5, 32), dtype=np.float32)
        file["x-coordinate"] = np.arange(32, dtype="f4")
    with FaultyServer(original.read_bytes()) as server:
        done = fetch_rows(server.address, keys, [(1, 3), (8, 9)], tmp_path / "n" / "x", policy=QUICK)
    check(done, tmp_path / "n" / "x", original, [1, 2, 8], keys)
    assert [piece["key"] for piece in done["ranges"]] == [key for key in keys for _ in range(2)]


def test_genuine_rows_are_read_by_the_reader_of_the_whole_file(tmp_path, genuine_data):
    original = genuine_data / "1D_Burgers_Sols_Nu0.01.rows4.hdf5"
    with FaultyServer(original.read_bytes()) as server:
        done = fetch_rows(server.address, ["tensor"], [(1, 3)], tmp_path / "x", policy=QUICK)
    check(done, tmp_path / "x", original, [1, 2])
    part = read_trajectories(tmp_path / "x", [0, 1], problem="burgers1d")
    whole = read_trajectories(original, [1, 2], problem="burgers1d")
    np.testing.assert_array_equal(part.fields, whole.fields)
    np.testing.assert_array_equal(part.times, whole.times)
    assert part.parameters == whole.parameters


def test_genuine_darcy_rows(tmp_path, genuine_data):
    original = genuine_data / "2D_DarcyFlow_beta1.0_Train.rows2.hdf5"
    done = fetch_rows(original.as_uri(), ["nu", "tensor"], [(1, 2)], tmp_path / "x", policy=QUICK)
    check(done, tmp_path / "x", original, [1], ("nu", "tensor"))


# By the steps of the requests that follow the header's.
FAULTS: dict[str, tuple[list[Step], tuple[type[UpsError], str] | None]] = {
    "cut at byte 0": ([serve(stop=0)], None),
    "cut in the middle": ([serve(stop=9999)], None),
    "cut before the last byte, twice": ([serve(stop=3 * ROW - 1), serve(stop=0)], None),
    "reset": ([serve(stop=9999, reset=True)], None),
    "no answer": ([raw()], None),
    "stalls": ([serve(stop=9999, stall=True)], None),
    "503 once": ([says(503)], None),
    "429": ([says(429, Retry_After="0")], None),
    "500 for ever": ([says(500)] * 9, (StorageError, "failed 4 times in a row")),
    "404 in the middle": ([serve(stop=9999), says(404)], (DataError, "HTTP 404")),
    "redirect on the same host": ([redirects("/elsewhere")], None),
    "redirect to a private net": ([redirects("http://10.0.0.1/")], (DataError, "not public")),
    "HTML": ([serve(status=200, ignore_range=True, body=b"<html>", headers={"Content-Type": "text/html"})],
             (DataError, "HTML page")),
    "HTML as 206": ([serve(headers={"Content-Type": "text/html"})], (DataError, "HTML page")),
    "Range ignored": ([serve(ignore_range=True)], (DataError, "does not serve parts")),
    "ETag changed": ([serve(etag='"v2"')], (IntegrityError, "another version")),
    "ETag changed, If-Range ignored": (
        [lambda e: serve(etag='"v2"')(_without_if_range(e))], (IntegrityError, "another version")),
    "object grew": ([serve(headers={"Content-Range": "bytes 0-1/99999999", "Content-Length": "2"})],
                    (IntegrityError, "another version")),
    "416": ([says(416)], (IntegrityError, "shorter than it was")),
    "another range": ([lambda e: serve(headers={"Content-Range": f"bytes 0-{3 * ROW - 1}/{len(e.server.body)}"})(e)],
                      (DataError, "was asked for")),
    "another length": ([serve(headers={"Content-Length": "17"})], (DataError, "in 17 bytes")),
    "no Content-Range": ([serve(headers={"Content-Range": None})], (DataError, "Content-Range ''")),
    "too many bytes": ([lambda e: _chunks_beyond(e)], (DataError, "more bytes than it announced")),
    "chunked": ([serve(chunked=True)], None),
    "chunked and cut": ([serve(chunked=True, stop=9999)], None),
    "gzip": ([serve(headers={"Content-Encoding": "gzip"})], (DataError, "encoded")),
}  # fmt: skip


def _without_if_range(exchange):
    exchange.request.headers.pop("if-range")
    return exchange


def _chunks_beyond(exchange) -> None:
    """The right header and a body that goes on."""
    first, last = map(int, exchange.request.range.removeprefix("bytes=").split("-"))
    total = len(exchange.server.body)
    serve(
        chunked=True,
        ignore_range=True,
        status=206,
        headers={"Content-Range": f"bytes {first}-{last}/{total}"},
    )(exchange)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_the_right_rows_or_in_a_typed_error(tmp_path, original, body, header_requests, fault):
    script, error = FAULTS[fault]
    destination = tmp_path / "x"
    with FaultyServer(body, script=[serve()] * header_requests + script) as server:
        if error is None:
            done = fetch_rows(server.address, ["tensor"], [(10, 13)], destination, policy=QUICK)
            check(done, destination, original, [10, 11, 12])
            return
        with pytest.raises(error[0]) as caught:
            fetch_rows(server.address, ["tensor"], [(10, 13)], destination, policy=QUICK)
        assert type(caught.value) is error[0]
        assert error[1] in str(caught.value)
        assert "fix: " in str(caught.value)
        assert not destination.exists()


def test_faults_in_the_header_are_the_same_faults(tmp_path, original, body, header_requests):
    for number in range(header_requests):
        script = [serve()] * number
        with FaultyServer(body, script=[*script, serve(stop=0), says(503)]) as server:
            done = fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x" / "x", policy=QUICK)
            check(done, tmp_path / "x" / "x", original, [0])
        for step, error in ((says(404), DataError), (serve(ignore_range=True), DataError)):
            with FaultyServer(body, script=[*script, step]) as server, pytest.raises(error):
                fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "y" / "y", policy=QUICK)
    with FaultyServer(body, script=[serve(), serve(etag='"v2"')]) as server, pytest.raises(IntegrityError):
        fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "y" / "y", policy=QUICK)
    assert not (tmp_path / "y" / "y").exists()


def test_a_cut_range_goes_on_where_it_was(tmp_path, body, original, header_requests):
    with FaultyServer(body, script=[serve()] * (header_requests + 1) + [serve(stop=9999)]) as server:
        done = fetch_rows(server.address, ["tensor"], [(0, 2), (10, 13)], tmp_path / "x", policy=QUICK)
        first, second = done["ranges"]
        assert server.ranges[header_requests:] == [
            f"bytes={first['offset']}-{first['offset'] + 2 * ROW - 1}",
            f"bytes={second['offset']}-{second['offset'] + 3 * ROW - 1}",
            f"bytes={second['offset'] + 9999}-{second['offset'] + 3 * ROW - 1}",
        ]
    check(done, tmp_path / "x", original, [0, 1, 10, 11, 12])


def test_a_failed_call_is_taken_up_by_the_next_with_the_same_arguments(
    tmp_path, body, original, header_requests
):
    script = [serve()] * (header_requests + 1) + [serve(stop=9999), *[raw()] * 4]
    for rows, etag, first_request in (
        ([(0, 2), (10, 13)], '"v1"', 10 * ROW + 9999),
        ([(0, 2), (10, 14)], '"v1"', 0),
        ([(0, 2), (10, 13)], '"v2"', 0),
    ):
        with FaultyServer(body, script=list(script)) as server:
            with pytest.raises(StorageError):
                fetch_rows(server.address, ["tensor"], [(0, 2), (10, 13)], tmp_path / "x", policy=QUICK)
            server.requests.clear()
            server.etag = etag
            done = fetch_rows(server.address, ["tensor"], rows, tmp_path / "x", policy=QUICK)
            start = int(server.ranges[header_requests].removeprefix("bytes=").partition("-")[0])
        assert start == done["ranges"][0]["offset"] + first_request
        check(done, tmp_path / "x", original, [row for a, b in rows for row in range(a, b)])


def test_without_validators_nothing_is_taken_up(tmp_path, body, original, header_requests):
    with FaultyServer(
        body, etag=None, script=[serve()] * header_requests + [serve(stop=9999), raw()]
    ) as server:
        with pytest.raises(StorageError):
            fetch_rows(
                server.address, ["tensor"], [(0, 2)], tmp_path / "x", policy=replace(QUICK, attempts=1)
            )
        server.script.clear()
        done = fetch_rows(server.address, ["tensor"], [(0, 2)], tmp_path / "x", policy=QUICK)
        assert (
            server.ranges[-1]
            == f"bytes={done['ranges'][0]['offset']}-{done['ranges'][0]['offset'] + 2 * ROW - 1}"
        )
    check(done, tmp_path / "x", original, [0, 1])


def test_a_killed_fetch_is_resumed_by_the_next_process(tmp_path, body, original, header_requests):
    program = """
        import sys
        from pathlib import Path
        from ups.transfer.remote_rows import fetch_rows
        fetch_rows(sys.argv[1], ["tensor"], [(0, 40)], Path(sys.argv[2]))
    """
    slow = serve(piece=20_000, seconds=0.03)
    with FaultyServer(body, script=[serve()] * header_requests + [slow]) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), server.address, tmp_path / "x"], cwd=Path.cwd()
        )
        partial = tmp_path / ".x.partial"
        while not (partial.exists() and partial.stat().st_size > 50_000):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = partial.stat().st_size
        server.requests.clear()
        done = fetch_rows(server.address, ["tensor"], [(0, 40)], tmp_path / "x", policy=QUICK)
        first = done["ranges"][0]["offset"]
        assert server.ranges[-1] == f"bytes={first + left}-{first + 40 * ROW - 1}"
    check(done, tmp_path / "x", original, list(range(40)))


def test_a_file_at_the_destination_is_replaced(tmp_path, body, original):
    (tmp_path / "x").write_text("old")
    with FaultyServer(body) as server:
        done = fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x", policy=QUICK)
    check(done, tmp_path / "x", original, [0])


def test_two_at_once_do_not_mix(tmp_path, body, original):
    with FaultyServer(body) as server:
        results = []

        def work(rows: tuple[int, int]) -> None:
            done = fetch_rows(server.address, ["tensor"], [rows], tmp_path / "x", policy=QUICK)
            results.append((done, list(range(*rows))))

        threads = [threading.Thread(target=work, args=(rows,)) for rows in ((0, 20), (20, 40))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 2
    with h5py.File(tmp_path / "x") as file:
        last = file["original-rows"][:].tolist()
    check(next(done for done, rows in results if rows == last), tmp_path / "x", original, last)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        *(
            (rows, "are no disjoint ranges of rows")
            for rows in ([], [(5, 5)], [(7, 3)], [(-1, 3)], [(0, 5), (4, 6)], [(4, 6), (4, 6)])
        ),
        ([(0, 1), (49, 51)], "has 50 rows, and rows up to 51 are asked for"),
    ],
)
def test_ranges_that_cannot_be_served_are_refused(tmp_path, body, rows, text):
    with FaultyServer(body) as server, pytest.raises(DataError, match=text):
        fetch_rows(server.address, ["tensor"], rows, tmp_path / "x", policy=QUICK)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "create",
    [
        {"chunks": (1, FRAMES, POINTS)},
        {"chunks": True, "compression": "gzip"},
        {"dtype": "<f8"},
        {"dtype": ">f4"},
        {"external": [("outside.bin", 0, h5py.h5f.UNLIMITED)]},
    ],
)
def test_arrays_whose_rows_are_no_pieces_need_the_whole_file(tmp_path, create, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = write_burgers(tmp_path / "original.hdf5", **create)
    with FaultyServer(original.read_bytes()) as server, pytest.raises(DataError, match="one piece") as caught:
        fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x", policy=QUICK)
    assert "download the whole file" in str(caught.value)


def test_other_layouts_are_refused(tmp_path):
    path = tmp_path / "other.hdf5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["scalar"] = np.zeros((3, 4), "f4"), np.zeros((2, 4), "f4"), np.float32(1)
        file["link"] = h5py.SoftLink("/nowhere")
        file.create_dataset("nothing", (3, 4), "f4")
    for keys, text in (
        (["a", "b"], "differ in their rows"),
        (["c"], "there is no array c"),
        (["link"], "there is no array"),
        (["scalar"], "is not stored as one piece"),
        (["nothing"], "is not stored as one piece"),
    ):
        with pytest.raises(DataError, match=text):
            fetch_rows(path.as_uri(), keys, [(0, 1)], tmp_path / "x", policy=QUICK)
    fetch_rows(path.as_uri(), ["a"], [(0, 1)], tmp_path / "x", policy=QUICK)
    with pytest.raises(DataError, match="holds some rows of another file already"):
        fetch_rows((tmp_path / "x").as_uri(), ["a"], [(0, 1)], tmp_path / "y", policy=QUICK)
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("of", ["the root", "a coordinate"])
def test_a_text_that_the_library_would_take_gigabytes_for_is_refused(tmp_path, body, of):
    """Attributes of remote files are read as those of files here: a declared length is held against the heap."""
    text = {"the root": "viscosity ν", "a coordinate": "1"}[of].encode()
    damaged, heap = bytearray(body), body.index(b"GCOL")
    at = body.index(len(text).to_bytes(4, "little") + heap.to_bytes(8, "little"))
    damaged[at : at + 4] = (2**31).to_bytes(4, "little")
    with FaultyServer(bytes(damaged)) as server, pytest.raises(DataError, match="damaged"):
        fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x", policy=QUICK)


def test_truncated_and_foreign_files_are_refused(tmp_path, body, original):
    with h5py.File(original) as file:
        offset = file["tensor"].id.get_offset()
    for cut, text in (
        (body[: offset + 3 * ROW], "truncated file"),
        (body[:600], "truncated file"),
        (b"<html>" * 1000, "cannot be read as HDF5"),
        (b"x", "cannot be read as HDF5"),
        (b"", "HTTP 416"),
    ):
        with FaultyServer(cut) as server, pytest.raises(DataError, match=text):
            fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x", policy=QUICK)
    assert not (tmp_path / "x").exists()


def test_a_header_of_random_bytes_is_a_data_error(tmp_path, body):
    """Flipped bytes in the header: an error that we know, or rows that are there. In a process of its own, as
    the HDF5 library might crash."""
    program = """
        import sys
        from pathlib import Path
        import numpy as np
        from ups.transfer.remote_rows import fetch_rows
        from ups.errors import UpsError
        body, place = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
        generator = np.random.default_rng(0)
        refused = 0
        for _ in range(60):
            damaged = bytearray(body)
            for position in generator.integers(0, 2048, 3):
                damaged[position] = generator.integers(256)
            (place / "damaged").write_bytes(damaged)
            try:
                fetch_rows((place / "damaged").as_uri(), ["tensor"], [(0, 1)], place / "x")
            except UpsError:
                refused += 1
        print(refused)
    """
    (tmp_path / "body").write_bytes(body[:])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / "body", tmp_path],
        capture_output=True, text=True, check=False, cwd=Path.cwd(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 10 < int(done.stdout) < 60


def test_a_disk_that_is_too_small_is_refused_before_the_first_row(tmp_path, body, header_requests):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small disk here")
    try:
        with (
            FaultyServer(body) as server,
            pytest.raises(PreflightError, match=r"2\.2 MB are needed, 0\.3 MB"),
        ):
            fetch_rows(server.address, ["tensor"], [(0, 50)], place / "x", policy=QUICK)
        assert len(server.requests) == header_requests
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """60 MB of rows: the process stays within 20 MB of what it had before."""
    path = tmp_path / "big.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", (15, 1000, 1000), "f4", fillvalue=1.0)[:] = 1.0
    program = """
        import sys
        from pathlib import Path
        from ups.transfer.remote_rows import fetch_rows
        def peak():  # ru_maxrss would be the parent's
            return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
        fetch_rows(sys.argv[1], ["tensor"], [(0, 1)], Path(sys.argv[2]))
        before = peak()
        fetch_rows(sys.argv[1], ["tensor"], [(0, 15)], Path(sys.argv[2]))
        print((peak() - before) // 1024)
    """
    with FaultyServer(path.read_bytes()) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), server.address, tmp_path / "x"],
            capture_output=True, text=True, check=True, cwd=Path.cwd(),
        )  # fmt: skip
    assert int(done.stdout) < 20


def test_the_network_is_not_awaited_while_h5py_holds_its_lock(tmp_path, body, original):
    """The server needs h5py for its answer: it would wait for us, and we for it."""

    def answers_with_h5py(exchange) -> None:
        with h5py.File(original) as file:
            assert "tensor" in file
        serve()(exchange)

    with FaultyServer(body, always=answers_with_h5py) as server:
        done = fetch_rows(server.address, ["tensor"], [(0, 1)], tmp_path / "x", policy=QUICK)
    check(done, tmp_path / "x", original, [0])


def test_a_local_file_that_changes_while_it_is_read_is_an_error(tmp_path, body):
    path = tmp_path / "original"
    path.write_bytes(body)

    def change(done: int, total: int | None) -> None:
        path.write_bytes(body + b"more")

    with pytest.raises(IntegrityError, match="another version"):
        fetch_rows(
            path.as_uri(), ["tensor"], [(0, 1), (10, 13)], tmp_path / "x", progress=change, policy=QUICK
        )
    assert not (tmp_path / "x").exists()
