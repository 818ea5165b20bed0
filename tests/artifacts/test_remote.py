"""Machines that share an object store and no file system: whole artifacts or none, and each is built once."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import TINY, start_ups, ups
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from sealing import sealed

from ups.artifacts import Store
from ups.artifacts import remote as remote_module
from ups.artifacts.remote import VARIABLE, Remote
from ups.errors import ConfigurationError, StorageError


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Environment of an S3-compatible server with a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        Remote("s3://bucket/x")._files.mkdir("bucket")
        yield environment
    server.stop()


@pytest.fixture(params=["files", "s3"])
def remote(request, tmp_path) -> Remote:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Remote(f"s3://bucket/{tmp_path.name}")
    (tmp_path / "remote").mkdir()
    return Remote(f"file://{tmp_path}/remote")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote_module, "_RENEWED_SECONDS", 0.05)
    monkeypatch.setattr(remote_module, "_STALE_SECONDS", 0.4)
    monkeypatch.setattr(remote_module, "_POLL_SECONDS", 0.05)


def here(tmp_path: Path, name: str) -> Store:
    return Store(tmp_path / name)


def test_what_one_machine_seals_another_has_with_its_parts(remote, tmp_path):
    one, other = here(tmp_path, "one"), here(tmp_path, "other")
    part = sealed(one, "data", "b" * 64, {"rows.bin": b"rows"})
    files = {"splits.json": b"{}", "logs/log.txt": b"l"}
    whole = sealed(one, "download", "a" * 64, files, parts={"train": part})
    assert remote.fetch(other, "download", "a" * 64) is None
    remote.push(one, whole)
    fetched = remote.fetch(other, "download", "a" * 64)
    assert fetched is not None
    assert fetched.manifest == whole.manifest
    other.verify(fetched, deep=True)
    assert (other.path("data", "b" * 64) / "rows.bin").read_bytes() == b"rows"


def test_what_is_damaged_or_not_whole_there_is_not_had_here(remote, tmp_path):
    one, other = here(tmp_path, "one"), here(tmp_path, "other")
    artifact = sealed(one, "operator", "a" * 64, {"model.bin": b"weights"})
    remote.push(one, artifact)
    files, prefix = remote._files, f"{remote._prefix}/operator/{'a' * 64}"
    files.pipe_file(f"{prefix}/model.bin", b"weightz")
    assert remote.fetch(other, "operator", "a" * 64) is None
    assert not list(other.artifacts.rglob("model.bin"))
    assert not files.exists(f"{prefix}/manifest.json"), "nobody else is to meet it"
    remote.push(one, artifact)
    assert remote.fetch(other, "operator", "a" * 64) is not None


def test_what_was_built_again_and_came_out_different_replaces_what_is_there(remote, tmp_path):
    one, other, third = (here(tmp_path, name) for name in ("one", "other", "third"))
    remote.push(one, sealed(one, "operator", "a" * 64, {"model.bin": b"first"}))
    remote.push(other, sealed(other, "operator", "a" * 64, {"model.bin": b"second"}))
    fetched = remote.fetch(third, "operator", "a" * 64)
    assert fetched is not None
    assert (fetched.path / "model.bin").read_bytes() == b"second"


def test_a_fetch_keeps_an_interrupted_build(remote, tmp_path):
    one, other = here(tmp_path, "one"), here(tmp_path, "other")
    checkpoint = other.work("operator", "a" * 64) / "checkpoints" / "5"
    checkpoint.mkdir(parents=True)
    assert remote.fetch(other, "operator", "a" * 64) is None
    remote.push(one, sealed(one, "operator", "a" * 64))
    assert remote.fetch(other, "operator", "a" * 64) is not None
    assert checkpoint.is_dir()


def test_one_builds_and_the_other_waits(remote):
    order, told = [], []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with remote.claim("operator", "a" * 64, on_wait=lambda: told.append(True)):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with remote.claim("operator", "a" * 64, on_wait=lambda: told.append(False)):
        inside.set()
        time.sleep(2.5 * remote_module._STALE_SECONDS)  # a claim that is renewed is not taken over
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert told == [True]
    assert not remote._files.exists(f"{remote._prefix}/.claims/operator-{'a' * 64}")


def test_the_claim_of_a_machine_that_is_gone_is_taken_over(remote):
    remote._files.pipe_file(f"{remote._prefix}/.claims/operator-{'a' * 64}", b"of a machine that is gone")
    with remote.claim("operator", "a" * 64, on_wait=lambda: None):
        pass


def test_a_store_that_is_not_there_is_told(monkeypatch, tmp_path):
    S3FileSystem.clear_instance_cache()  # they remember where they looked first
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="UPS_REMOTE s3://nowhere/x") as found:
        Remote("s3://nowhere/x").fetch(here(tmp_path, "one"), "operator", "a" * 64)
    assert "secret" not in str(found.value)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigurationError, match="UPS_REMOTE"):
        Remote("no-such-kind://bucket")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_build_every_stage_once(s3, tmp_path):
    environment = s3 | {VARIABLE: f"s3://bucket/{tmp_path.name}"}
    roots = [tmp_path / "one", tmp_path / "other"]
    chosen = ("--until", "operator", "--set", "tracking.wandb=disabled", "--set", "execution.device=cpu")
    started = [start_ups("run", TINY, "--root", root, *chosen, **environment) for root in roots]
    for process in started:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    found = [json.loads(next(root.glob("runs/*/artifacts.json")).read_text()) for root in roots]
    assert [row["digest"] for row in found[0].values()] == [row["digest"] for row in found[1].values()]
    for stage in found[0]:
        assert [rows[stage]["hit"] for rows in found].count(False) == 1, stage

    third = tmp_path / "third"
    shutil.rmtree(roots[0])
    done = ups("run", TINY, "--root", third, *chosen, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(next(third.glob("runs/*/artifacts.json")).read_text())
    assert all(row["hit"] and "brought from UPS_REMOTE" in row["reason"] for row in rows.values())
