"""Whole files against a real server that errs in some sixty ways: each ends in equal bytes and right sums, or in a
typed error and nothing at the destination.
"""

import hashlib
import io
import json
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from faulty_server import FaultyServer, Step, dripping, raw, redirects, says, serve

from ups.errors import (
    ConfigurationError,
    DataError,
    IntegrityError,
    PreflightError,
    StorageError,
    UpsError,
)
from ups.problems.published import DARUS
from ups.transfer import address as address_module
from ups.transfer.address import is_public, parse_address
from ups.transfer.download import HDF5_SIGNATURE, address_of, download
from ups.transfer.retry import RetryPolicy

# A busy machine may pause for a second: only where silence is the fault, less is borne.
QUICK = RetryPolicy(deadline_seconds=20, attempts=4, inactivity_seconds=5, backoff_seconds=0.01)
HURRY = replace(QUICK, inactivity_seconds=0.4)
HASTY = replace(HURRY, attempts=2)


def _hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["tensor"] = np.random.default_rng(0).random((60, 1000), dtype=np.float32)
    return stream.getvalue()


BODY = _hdf5()
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[:8] + bytes(reversed(BODY[8:]))
HTML = {"headers": {"Content-Type": "text/html; charset=utf-8"}, "body": b"<!DOCTYPE html><html>...</html>"}


@dataclass(frozen=True)
class Fault:
    """A script and how it must end.

    `requests`: the Range header of each request, where the case is about them. `error`: (type, part of the
    message), or None where the file must be whole.
    """

    script: list[Step] = field(default_factory=list)
    error: tuple[type[UpsError], str] | None = None
    always: Step | None = None
    requests: list[str | None] | None = None
    policy: RetryPolicy = QUICK
    size: int | None = None
    server: dict[str, Any] = field(default_factory=dict)


def refused(type_: type[UpsError], text: str) -> tuple[type[UpsError], str]:
    return type_, text


def header(*, length: int | None = SIZE) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f'HTTP/1.1 200 OK\r\n{size}ETag: "v1"\r\n\r\n'.encode()


REST = "bytes={}-".format

FAULTS = {
    # The connection
    "nothing wrong": Fault(requests=[None]),
    "refused, then fine": Fault(server={"delay": 0.3}, policy=replace(QUICK, attempts=12)),
    "closed without an answer": Fault([raw()], requests=[None, None]),
    "reset without an answer": Fault([raw(reset=True)], requests=[None, None]),
    "garbage instead of an answer": Fault([raw(b"\x00\x01\x02 nonsense\r\n\r\n")], requests=[None, None]),
    "cut in the status line": Fault([raw(b"HTTP/1.1 20")], requests=[None, None]),
    "cut in the headers": Fault([raw(header()[:60])], requests=[None, None]),
    "headers without end": Fault(
        always=raw(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789\r\n" * 10_000),
        error=refused(StorageError, "the connection failed"),
    ),
    "cut at byte 0": Fault([serve(stop=0)], requests=[None, None]),
    "cut at byte 1": Fault([serve(stop=1)], requests=[None, REST(1)]),
    "cut in the middle": Fault([serve(stop=SIZE // 2)], requests=[None, REST(SIZE // 2)]),
    "cut before the last byte": Fault([serve(stop=SIZE - 1)], requests=[None, REST(SIZE - 1)]),
    "cut twice": Fault([serve(stop=5000), serve(stop=5000)], requests=[None, REST(5000), REST(10_000)]),
    "reset in the middle": Fault([serve(stop=5000, reset=True)]),
    "cut more often than there are attempts, always further": Fault(
        [serve(stop=1000)] * 9, requests=[None, *(REST(1000 * n) for n in range(1, 10))]
    ),
    "cut for ever": Fault(
        [serve(stop=5000)], always=raw(), error=refused(StorageError, "failed 4 times in a row")
    ),
    "stalls before the headers": Fault([raw(stall=True)], requests=[None, None], policy=HURRY),
    "stalls in the middle": Fault([serve(stop=5000, stall=True)], requests=[None, REST(5000)], policy=HURRY),
    "stalls for ever": Fault(
        always=raw(stall=True), policy=HASTY, error=refused(StorageError, "nothing came from the")
    ),
    "headers drip, then fine": Fault([dripping(header(), 0.05)], requests=[None, None], policy=HURRY),
    "headers drip for ever": Fault(
        always=dripping(header(), 0.05),
        policy=HASTY,
        error=refused(StorageError, "nothing came from the server for 0.4 s"),
    ),
    "frame of a chunk drips for ever": Fault(
        always=raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"0"] * 40, seconds=0.05
        ),
        policy=HASTY,
        error=refused(StorageError, "nothing came from the server for 0.4 s"),
    ),
    "body drips for ever": Fault(
        always=serve(piece=100, seconds=0.05),
        policy=replace(HURRY, deadline_seconds=1.0),
        error=refused(StorageError, "deadline of 1 s"),
    ),
    # The status
    "404": Fault([says(404)], refused(DataError, "answers HTTP 404 Not Found")),
    "410": Fault([says(410)], refused(DataError, "answers HTTP 410 Gone")),
    "401": Fault([says(401)], refused(DataError, "answers HTTP 401")),
    "403": Fault([says(403)], refused(DataError, "answers HTTP 403")),
    "404 in the middle": Fault([serve(stop=5000), says(404)], refused(DataError, "HTTP 404")),
    "400": Fault([says(400)], refused(DataError, "HTTP 400")),
    "204": Fault([says(204, b"")], refused(DataError, "HTTP 204")),
    "an unknown status": Fault([says(299)], refused(DataError, "HTTP 299")),
    "408 once": Fault([says(408)], requests=[None, None]),
    "429 with Retry-After, then fine": Fault([says(429, Retry_After="1")], requests=[None, None]),
    "429 with nonsense, then fine": Fault([says(429, Retry_After="soon")]),
    "429 for ever": Fault(
        always=says(429, Retry_After="1"),
        policy=replace(QUICK, deadline_seconds=0.9),
        error=refused(StorageError, "the deadline of 0.9 s"),
    ),
    "429 until next week": Fault(
        [says(429, Retry_After="604800")], refused(StorageError, "HTTP 429 Too Many Requests")
    ),
    "500 once": Fault([says(500)], requests=[None, None]),
    "503 thrice": Fault([says(503)] * 3, requests=[None] * 4),
    "500 for ever": Fault(always=says(500), error=refused(StorageError, "HTTP 500 Internal Server Error")),
    "503 in the middle": Fault([serve(stop=5000), says(503)], requests=[None, REST(5000), REST(5000)]),
    # What is sent
    "an HTML page": Fault([serve(**HTML)], refused(DataError, "an HTML page")),
    "an HTML page in the middle": Fault(
        [serve(stop=5000), serve(**HTML, ignore_range=True)], refused(DataError, "an HTML page")
    ),
    "HTML under another type": Fault([serve(body=HTML["body"])], refused(DataError, "must begin with")),
    "an empty body": Fault([serve(body=b"")], refused(DataError, "an empty file")),
    "an empty chunked body": Fault([serve(body=b"", chunked=True)], refused(DataError, "an empty file")),
    "gzip": Fault([serve(headers={"Content-Encoding": "gzip"})], refused(DataError, "encoded ('gzip')")),
    "identity encoding": Fault([serve(headers={"Content-Encoding": "identity"})]),
    "a flipped bit once": Fault([serve(flip=9999)], requests=[None, None]),
    "a flipped bit for ever": Fault(always=serve(flip=9999), error=refused(IntegrityError, MD5)),
    "a flipped bit before a cut": Fault([serve(flip=99, stop=5000)], requests=[None, REST(5000), None]),
    "another file": Fault(always=serve(body=OTHER), error=refused(IntegrityError, "instead of " + MD5)),
    # Lengths
    "Content-Length too long": Fault(
        [serve(headers={"Content-Length": str(SIZE + 10)})],
        requests=[None, REST(SIZE), None],
    ),
    "Content-Length too long for ever": Fault(
        always=serve(headers={"Content-Length": str(SIZE + 10)}, ignore_range=True),
        error=refused(StorageError, "times in a row"),
    ),
    "Content-Length too short": Fault(
        always=serve(headers={"Content-Length": str(SIZE - 10)}), error=refused(IntegrityError, "has MD5")
    ),
    "Content-Length against the known size": Fault(
        [serve(headers={"Content-Length": str(SIZE - 10)})],
        refused(IntegrityError, f"length {SIZE - 10} instead of {SIZE}"),
        size=SIZE,
    ),
    "Content-Length is no number": Fault(
        always=serve(headers={"Content-Length": "many"}), error=refused(StorageError, "connection failed")
    ),
    "Content-Length beyond all measure": Fault(
        always=serve(headers={"Content-Length": "9" * 5000}),
        error=refused(StorageError, "the connection failed"),
    ),
    "Content-Length beyond the disk": Fault(
        [serve(headers={"Content-Length": "9" * 18})], refused(PreflightError, "MB are needed")
    ),
    "surplus after the body": Fault([serve(surplus=b"more")], requests=[None]),
    "chunked": Fault([serve(chunked=True)], requests=[None]),
    "chunked and cut": Fault([serve(chunked=True, stop=5000)], requests=[None, REST(5000)]),
    "chunked, longer than known": Fault(
        [serve(chunked=True, body=BODY + b"x")],
        refused(DataError, "more bytes than it announced"),
        size=SIZE,
    ),
    "chunked, shorter than known": Fault(
        [serve(chunked=True, body=BODY[:-9])], requests=[None, REST(SIZE - 9)], size=SIZE
    ),
    "no length, ends with the connection": Fault([serve(headers={"Content-Length": None})], requests=[None]),
    "no length, cut, size known": Fault(
        [serve(headers={"Content-Length": None}, stop=5000)], requests=[None, REST(5000)], size=SIZE
    ),
    # Resuming
    "Range ignored": Fault(
        [serve(stop=5000), serve(ignore_range=True)], requests=[None, REST(5000)], server={"etag": None}
    ),
    "Range ignored and cut again": Fault(
        [serve(stop=5000), serve(ignore_range=True, stop=3000)], requests=[None, REST(5000), REST(3000)]
    ),
    "206 with a wrong start": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": f"bytes 4999-{SIZE - 1}/{SIZE}", "Content-Length": str(SIZE - 4999)})],
        refused(DataError, "was asked for 5000-"),
    ),
    "206 with a wrong end": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": f"bytes 5000-9999/{SIZE}", "Content-Length": "5000"})],
        refused(DataError, "was asked for 5000-"),
    ),
    "206 with another length than its range": Fault(
        [serve(stop=5000), serve(headers={"Content-Length": "5000"})], refused(DataError, "in 5000 bytes")
    ),
    "206 with a wrong total": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": f"bytes 5000-{SIZE - 1}/{SIZE + 7}"})],
        requests=[None, REST(5000), None],
    ),
    "206 with a range beyond its total": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": f"bytes 5000-{SIZE - 1}/6000"})],
        requests=[None, REST(5000), None],
    ),
    "206 without Content-Range": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": None})], refused(DataError, "with Content-Range ''")
    ),
    "206 with an unknown total": Fault(
        [serve(stop=5000), serve(headers={"Content-Range": f"bytes 5000-{SIZE - 1}/*"})],
        requests=[None, REST(5000)],
    ),
    "206 unasked": Fault(
        [serve(status=206, headers={"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"})],
        refused(DataError, "HTTP 206"),
    ),
    "416 unasked": Fault([says(416)], refused(DataError, "HTTP 416")),
    "416 in the middle": Fault([serve(stop=5000), says(416)], requests=[None, REST(5000), None]),
    "416 for ever": Fault(
        [serve(stop=5000)], refused(DataError, "HTTP 416"), always=says(416)
    ),
    "ETag changed": Fault(
        [serve(stop=5000, etag='"v0"', body=OTHER)], requests=[None, REST(5000)]  # If-Range: the whole comes
    ),
    "ETag changed, If-Range ignored": Fault(
        [serve(stop=5000), serve(etag='"v2"', headers={"Content-Range": f"bytes 5000-{SIZE - 1}/{SIZE}"}, status=206, ignore_range=True)],
        requests=[None, REST(5000), None],
    ),
    "weak ETag changed": Fault(
        [serve(stop=5000, etag='W/"v0"', body=OTHER)], requests=[None, REST(5000), None]
    ),
    "object grew": Fault(
        [serve(stop=5000, body=BODY[:-100], etag='"short"')], requests=[None, REST(5000)]
    ),
    "object grew under the same ETag": Fault(
        [serve(stop=5000, body=BODY[:-100])], requests=[None, REST(5000), None]
    ),
    "ETag beyond ASCII": Fault(
        [serve(stop=5000, headers={"ETag": '"\u00fc"'}), serve(headers={"ETag": '"\u00fc"'})],
        requests=[None, REST(5000)],
    ),
    "no ETag, MD5 known": Fault([serve(stop=5000)], requests=[None, REST(5000)], server={"etag": None}),
    # Redirects
    "redirect on the same host": Fault([redirects("/elsewhere")], requests=[None, None]),
    "redirect 308, absolute": Fault([redirects("http://127.0.0.1:{port}/elsewhere", 308)]),
    "five redirects": Fault([redirects("/elsewhere")] * 5, requests=[None] * 6),
    "redirect loop": Fault(always=redirects("/file.hdf5"), error=refused(DataError, "redirects more than 5 times")),
    "redirect to nowhere": Fault([says(302)], refused(DataError, "HTTP 302")),
    "redirect to nonsense": Fault(
        always=redirects("http://[::1"), error=refused(StorageError, "Invalid URL"), policy=HASTY
    ),
    "redirect to file": Fault([redirects("file:///etc/passwd")], refused(DataError, "from http to file")),
    "redirect to ftp": Fault([redirects("ftp://127.0.0.1/x")], refused(DataError, "from http to ftp")),
    "redirect to https": Fault([redirects("https://127.0.0.1:{port}/x")], refused(DataError, "to https")),
    "redirect to another port": Fault(
        [redirects("http://127.0.0.1:1/x")], refused(DataError, "not public (127.0.0.1)")
    ),
    "redirect to a name of this host": Fault(
        [redirects("http://localhost:{port}/x")], refused(DataError, "not public"), requests=[None]
    ),
    "redirect to a private net": Fault([redirects("http://10.0.0.1/x")], refused(DataError, "(10.0.0.1)")),
    "redirect to the metadata of a cloud": Fault(
        [redirects("http://169.254.169.254/latest/meta-data")], refused(DataError, "(169.254.169.254)")
    ),
    "redirect to a mapped address": Fault(
        [redirects("http://[::ffff:127.0.0.1]:{port}/x")], refused(DataError, "not public")
    ),
    "redirect to a number": Fault(
        [redirects("http://2130706433:{port}/x")], refused(DataError, "(127.0.0.1)"), requests=[None]
    ),
    "redirect with credentials": Fault(
        [redirects("http://a:secret@127.0.0.1:{port}/x")], refused(DataError, "credentials of its own")
    ),
    "redirect in the middle": Fault(
        [serve(stop=5000), redirects("/elsewhere")], requests=[None, REST(5000), REST(5000)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_ends_in_the_right_bytes_or_in_a_typed_error(tmp_path, fault):
    destination = tmp_path / "file.hdf5"
    call: dict[str, Any] = {"size": fault.size, "signature": HDF5_SIGNATURE, "policy": fault.policy}
    with FaultyServer(BODY, script=list(fault.script), always=fault.always, **fault.server) as server:
        if fault.error is not None:
            with pytest.raises(fault.error[0]) as caught:
                download(server.address, destination, md5=MD5, **call)
            assert type(caught.value) is fault.error[0]
            assert fault.error[1] in str(caught.value)
            assert "fix: " in str(caught.value)
            assert not destination.exists()
            assert fault.requests in (None, server.ranges)
            return
        done = download(server.address, destination, md5=MD5, **call)
        assert fault.requests in (None, server.ranges)
    assert destination.read_bytes() == BODY
    assert done == SHA256
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.hdf5.lock", "file.hdf5"]


# Resuming in another process


def test_a_killed_download_is_resumed_by_the_next_process(tmp_path):
    destination = tmp_path / "file.hdf5"
    program = f"""
        from pathlib import Path
        from ups.transfer.download import download
        import sys
        download(sys.argv[1], Path(sys.argv[2]), md5="{MD5}")
    """
    with FaultyServer(BODY, script=[serve(piece=10_000, seconds=0.05)]) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), server.address, destination], cwd=Path.cwd()
        )
        partial = tmp_path / ".file.hdf5.partial"
        while not (partial.exists() and partial.stat().st_size > 20_000):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = partial.stat().st_size
        assert 20_000 < left < SIZE
        assert partial.read_bytes() == BODY[:left]
        done = download(server.address, destination, md5=MD5, policy=QUICK)
        assert server.ranges == [None, f"bytes={left}-"]
        assert server.requests[1].headers["if-range"] == '"v1"'
    assert destination.read_bytes() == BODY
    assert done == SHA256


def left_behind(tmp_path: Path, server: FaultyServer) -> Path:
    """What a download leaves that was cut after 5000 bytes and gave up."""
    server.script[:] = [serve(stop=5000), raw()]
    with pytest.raises(StorageError):
        download(server.address, tmp_path / "file.hdf5", md5=MD5, policy=replace(QUICK, attempts=1))
    server.requests.clear()
    server.script.clear()
    partial = tmp_path / ".file.hdf5.partial"
    assert partial.read_bytes() == BODY[:5000]
    return partial


def test_what_a_failed_call_left_is_used_only_for_the_same_object(tmp_path):
    with FaultyServer(BODY) as server:
        partial = left_behind(tmp_path, server)
        download(server.address, tmp_path / "file.hdf5", md5=MD5, policy=QUICK)
        assert server.ranges == ["bytes=5000-"]

        (tmp_path / "file.hdf5").unlink()
        left_behind(tmp_path, server)
        download(server.address + "?version=2", tmp_path / "file.hdf5", md5=MD5, policy=QUICK)
        assert server.ranges == [None]

        (tmp_path / "file.hdf5").unlink()
        left_behind(tmp_path, server)
        partial.with_name(".file.hdf5.partial.json").write_text("{}")
        download(server.address, tmp_path / "file.hdf5", md5=MD5, policy=QUICK)
        assert server.ranges == [None]

        (tmp_path / "file.hdf5").unlink()
        left_behind(tmp_path, server)
        partial.write_bytes(b"?" * 5000)  # the MD5 finds out
        download(server.address, tmp_path / "file.hdf5", md5=MD5, policy=QUICK)
        assert server.ranges == ["bytes=5000-", None]
        assert (tmp_path / "file.hdf5").read_bytes() == BODY


def test_a_whole_partial_file_needs_no_network(tmp_path):
    with FaultyServer(BODY) as server:
        partial = left_behind(tmp_path, server)
    partial.write_bytes(BODY)
    download(server.address, tmp_path / "file.hdf5", md5=MD5, policy=QUICK)  # the server is gone
    assert (tmp_path / "file.hdf5").read_bytes() == BODY


# What is there already


def test_a_file_that_is_there_is_checked_and_accepted_without_network(tmp_path):
    destination = tmp_path / "file.hdf5"
    destination.write_bytes(BODY)
    nobody = "http://127.0.0.1:9/file.hdf5"
    assert download(nobody, destination, md5=MD5, size=SIZE, policy=QUICK) == SHA256
    with pytest.raises(IntegrityError, match=f"has MD5 {MD5}") as caught:
        download(nobody, destination, md5="0" * 32, policy=QUICK)
    assert "move it away or delete it" in str(caught.value)
    assert destination.read_bytes() == BODY


def test_of_two_downloads_at_once_one_works_and_the_other_finds_it_done(tmp_path):
    destination = tmp_path / "file.hdf5"
    results = []
    with FaultyServer(BODY, script=[serve(piece=20_000, seconds=0.03)]) as server:

        def work() -> None:
            results.append(download(server.address, destination, md5=MD5, policy=QUICK))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.ranges == [None]
    assert results == [results[0]] * 3
    assert destination.read_bytes() == BODY


def test_waiting_for_another_process_has_an_end(tmp_path):
    with FaultyServer(BODY, always=serve(piece=1000, seconds=0.02)) as server:

        def work() -> None:
            with pytest.raises(StorageError, match="deadline"):
                download(server.address, tmp_path / "a", md5=MD5, policy=replace(QUICK, deadline_seconds=1))

        other = threading.Thread(target=work)
        other.start()
        while not server.requests:
            time.sleep(0.01)
        with pytest.raises(StorageError, match="another process is fetching this file"):
            download(server.address, tmp_path / "a", md5=MD5, policy=replace(QUICK, deadline_seconds=0.2))
        other.join()


# Disks


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"may not mount a small disk here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(small_disk):
    with (
        FaultyServer(BODY) as server,
        pytest.raises(PreflightError, match=r"0\.2 MB are needed, 0\.1 MB are"),
    ):
        download(server.address, small_disk / "file.hdf5", md5=MD5, policy=QUICK)
    assert [path.name for path in small_disk.iterdir()] == [".file.hdf5.lock"]


def test_a_disk_that_fills_up_keeps_what_has_arrived(small_disk):
    destination = small_disk / "file.hdf5"
    with FaultyServer(BODY, script=[serve(chunked=True)]) as server:
        with pytest.raises(StorageError, match="No space left on device"):
            download(server.address, destination, md5=MD5, policy=QUICK)
        left = (small_disk / ".file.hdf5.partial").stat().st_size
        assert left > 50_000
        subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
        download(server.address, destination, md5=MD5, policy=QUICK)
        assert server.ranges == [None, f"bytes={left}-"]
    assert destination.read_bytes() == BODY


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        download("http://127.0.0.1:9/x", tmp_path / "file" / "x", md5=MD5, policy=QUICK)


# Files


def test_a_file_address_is_copied_with_the_same_checks(tmp_path):
    source = tmp_path / "a b#ü.hdf5"
    source.write_bytes(BODY)
    address = source.as_uri()
    reports = []
    done = download(
        address,
        tmp_path / "new" / "x",
        md5=MD5,
        size=SIZE,
        signature=HDF5_SIGNATURE,
        progress=lambda *n: reports.append(n),
    )
    assert done == SHA256
    assert (tmp_path / "new" / "x").read_bytes() == BODY
    assert reports[-1] == (SIZE, SIZE)
    for wrong, error, text in (
        ({"md5": "0" * 32}, IntegrityError, "instead of"),
        ({"size": 5}, IntegrityError, f"length {SIZE} instead of 5"),
        ({"signature": b"PK"}, DataError, "must begin with"),
    ):
        with pytest.raises(error, match=text):
            download(address, tmp_path / "y", **({"md5": MD5} | wrong))
        assert not (tmp_path / "y").exists()
        assert not (tmp_path / ".y.partial").exists()
    for path, text in ((tmp_path / "absent", "no such file"), (tmp_path, "no such file")):
        with pytest.raises(DataError, match=text):
            download(path.as_uri(), tmp_path / "y", md5=MD5)


def test_a_genuine_file_is_copied(tmp_path, genuine_data):
    source = genuine_data / "2D_DarcyFlow_beta1.0_Train.rows2.hdf5"
    content = source.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    done = download(source.as_uri(), tmp_path / "x", md5=md5, signature=HDF5_SIGNATURE)
    assert done == hashlib.sha256(content).hexdigest()


# Progress and secrets


def test_progress_is_told_and_goes_on_after_a_cut(tmp_path):
    reports = []
    with FaultyServer(BODY, script=[serve(stop=100_000)]) as server:
        download(server.address, tmp_path / "x", md5=MD5, progress=lambda *n: reports.append(n), policy=QUICK)
    counts = [count for count, _ in reports]
    assert counts == sorted(counts)
    assert 100_000 in counts
    assert reports[-1] == (SIZE, SIZE)


def test_a_slow_consumer_is_not_the_servers_fault(tmp_path):
    with FaultyServer(BODY) as server:

        def progress(done: int, total: int | None) -> None:
            if done < 150_000:
                time.sleep(0.5)  # longer than the time of inactivity

        download(server.address, tmp_path / "x", md5=MD5, progress=progress, policy=HURRY)
        assert server.ranges == [None]


def test_credentials_are_sent_and_never_shown(tmp_path, caplog):
    caplog.set_level("DEBUG")
    with FaultyServer(BODY, script=[says(503), serve(stop=5000), redirects("/elsewhere")]) as server:
        address = server.address.replace("://", "://me:PASSWORD@") + "?key=TOKEN"
        download(address, tmp_path / "x", md5=MD5, policy=QUICK)
        assert [request.headers["authorization"] for request in server.requests] == [
            "Basic bWU6UEFTU1dPUkQ="  # me:PASSWORD
        ] * 4
        assert server.requests[0].path == "/file.hdf5?key=TOKEN"
        server.script[:] = [serve(stop=5000), says(403)]
        with pytest.raises(DataError, match=r"file\.hdf5\?\.\.\.: the server answers HTTP 403") as caught:
            download(address, tmp_path / "y", md5=MD5, policy=QUICK)
    kept = (tmp_path / ".y.partial.json").read_text()
    assert json.loads(kept)["address"] == server.address + "?..."
    for secret in ("PASSWORD", "TOKEN"):
        assert secret not in str(caught.value) + kept + caplog.text


def test_an_address_that_cannot_be_read_is_refused_without_its_credentials(tmp_path):
    for address in (
        "data/file.hdf5", "ftp://me:PASSWORD@host/x", "http://me:PASSWORD@host:99999/x", "http:///x", "https://",
        "http://me:PASSWORD@[::1/x", "file://host/x", "file:relative", "file:///x?key=PASSWORD", "",
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match="fix: write https://host/path") as caught:
            download(address, tmp_path / "x", md5=MD5)
        assert "PASSWORD" not in str(caught.value)


# Redirects to other hosts, and TLS


def test_which_addresses_are_public():
    private = (
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::",
        "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1", "2002:0a00:0001::",
        "64:ff9b::7f00:1",
    )  # fmt: skip
    public = ("129.69.8.19", "8.8.8.8", "2001:7c0:2015::1", "::ffff:8.8.8.8", "64:ff9b::808:808")
    assert [address for address in private if is_public(address)] == []
    assert [address for address in public if not is_public(address)] == []


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """For the name localhost and nothing else; trusted."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, path = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    extension = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", path]
    subprocess.run([*command, *extension], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return context


def test_a_redirect_to_another_host_gets_no_credentials(tmp_path, certificate, monkeypatch):
    monkeypatch.setattr(address_module, "is_public", lambda address: True)
    with FaultyServer(BODY, tls=certificate, script=[serve(stop=5000)]) as target:
        there = f"https://localhost:{target.port}/there?signature=1"
        with FaultyServer(BODY, tls=certificate, script=[redirects(there)] * 2) as server:
            address = server.address.replace("127.0.0.1", "me:PASSWORD@localhost")
            download(address, tmp_path / "x", md5=MD5, policy=QUICK)
    assert (tmp_path / "x").read_bytes() == BODY
    assert [request.path for request in target.requests] == ["/there?signature=1"] * 2
    assert target.requests[0].headers["host"] == f"localhost:{target.port}"
    assert "authorization" not in target.requests[0].headers


def test_a_redirect_from_https_to_http_is_refused_and_shows_no_secret(tmp_path, certificate):
    with FaultyServer(BODY, tls=certificate, script=[redirects("http://s3.example/x?key=SECRET")]) as server:
        address = server.address.replace("127.0.0.1", "localhost") + "?key=TOKEN"
        with pytest.raises(DataError, match="from https to http,") as caught:
            download(address, tmp_path / "x", md5=MD5, policy=QUICK)
    assert "SECRET" not in str(caught.value)
    assert "TOKEN" not in str(caught.value)


def test_a_certificate_that_is_not_trusted_is_no_reason_to_try_again(tmp_path, certificate):
    with FaultyServer(BODY, tls=certificate) as server:
        with pytest.raises(PreflightError, match="certificate is not trusted"):
            download(
                server.address, tmp_path / "x", md5=MD5, policy=QUICK
            )  # it is for localhost, not 127.0.0.1
        assert server.requests == []


def test_a_stalled_tls_handshake_has_an_end(tmp_path):
    with FaultyServer(BODY, always=raw(stall=True)) as server:
        address = server.address.replace("http://", "https://")
        with pytest.raises(StorageError, match="failed 2 times in a row"):
            download(address, tmp_path / "x", md5=MD5, policy=HASTY)


def test_through_a_proxy_the_name_is_the_proxys_to_resolve(tmp_path, monkeypatch):
    """The proxy is the server of the test, which answers whatever it is asked for."""
    monkeypatch.delenv("NO_PROXY")
    with FaultyServer(BODY, script=[redirects("http://other.invalid/y")]) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        download("http://files.invalid/x", tmp_path / "x", md5=MD5, policy=QUICK)
        assert [request.path for request in proxy.requests] == [
            "http://files.invalid/x",
            "http://other.invalid/y",
        ]
        for private in ("http://localhost/y", "http://192.168.0.1/y", "http://[::1]/y"):
            proxy.script[:] = [redirects(private)]
            with pytest.raises(DataError, match="not public"):
                download("http://files.invalid/x", tmp_path / "y", md5=MD5, policy=QUICK)


# Address templates


def test_templates_of_addresses():
    name = "1D_Burgers_Sols_Nu0.01.hdf5"
    assert address_of(DARUS, file_id=281363, name=name) == (
        "https://darus.uni-stuttgart.de/api/access/datafile/281363"
    )
    assert address_of("file:///data/{name}", file_id=1, name=name) == f"file:///data/{name}"
    for template in ("x", "{nu}", "{}", "{id", "{id:>9}", "{name!r}", "{id.real}", "{0}"):  # noqa: RUF027
        with pytest.raises(ConfigurationError, match="fix: write"):
            address_of(f"https://h/{template}", file_id=1, name=name)
    for template in ("{" + "name}", "ftp://h/{id}"):
        with pytest.raises(ConfigurationError, match="fix: write"):
            address_of(template, file_id=1, name=name)


def test_the_address_of_a_local_mirror_is_read_back(tmp_path):
    assert parse_address((tmp_path / "a%b").as_uri()).path == tmp_path / "a%b"
