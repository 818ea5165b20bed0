"""A rented machine is given back, whatever happens; against a stand-in for the vendor's client (`vastai.py` beside this file)."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployments import rent
from ups.errors import StorageError

ONLINE = rent.worker_is_online
GPU = {"gpu_name": "RTX 4090", "num_gpus": 1}


class Cloud:
    """What the stand-in client reads and writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(
            calls=[],
            instances=[],
            offers=[
                {"id": 11, "machine_id": 1, "dph_total": 0.30} | GPU,
                {"id": 12, "machine_id": 2, "dph_total": 0.40} | GPU,
                {"id": 21, "machine_id": 1, "dph_total": 0.35} | GPU,
                {"id": 13, "machine_id": 3, "dph_total": 0.90} | GPU,
            ],
        )

    def set(self, **changes: Any) -> None:
        now = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.path.write_text(json.dumps(now | changes))

    def __getitem__(self, key: str) -> Any:
        return json.loads(self.path.read_text())[key]

    def offers_taken(self) -> list[int]:
        return [int(words[2]) for words in self["calls"] if words[:2] == ["create", "instance"]]


@pytest.fixture
def cloud(tmp_path, monkeypatch) -> Cloud:
    client = tmp_path / "bin" / "vastai"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).with_name("vastai.py")} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("UPS_REMOTE", raising=False)
    monkeypatch.setenv("VASTAI_CLOUD", str(tmp_path / "cloud.json"))
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.com/api")
    monkeypatch.setattr(rent, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(rent, "worker_is_online", lambda name: True)
    return Cloud(tmp_path / "cloud.json")


def run(*command: str, dollars: str = "0.5", minutes: str = "1", machines: str = "3") -> int:
    options = ("--gpu", "RTX_4090", "--dollars", dollars, "--start-minutes", minutes, "--machines", machines)
    return rent.main(["run", *options, "--repository", "https://example.com/ups.git", "--", *command])


def test_the_cheapest_machine_is_there_while_the_command_runs_and_gone_then(cloud, tmp_path, capsys):
    copy = tmp_path / "during.json"
    assert run("cp", str(cloud.path), str(copy)) == 0
    [during] = json.loads(copy.read_text())["instances"]
    assert (during["machine_id"], during["actual_status"]) == (1, "running")
    assert cloud["instances"] == []
    [created] = [words for words in cloud["calls"] if words[:2] == ["create", "instance"]]
    environment = created[created.index("--env") + 1].split(" ")
    assert "PREFECT_API_URL=https://prefect.example.com/api" in environment
    assert f"UPS_WORKER={during['label']}" in environment
    assert "deployments/bootstrap.sh" in created[created.index("--onstart-cmd") + 1]
    assert "given back" in capsys.readouterr().err


def test_the_machine_gets_the_store_or_its_loss_is_told(cloud, capsys, monkeypatch):
    for url in (None, "s3://bucket/ups"):
        if url:
            monkeypatch.setenv("UPS_REMOTE", url)
        assert run("true") == 0
        created = [words for words in cloud["calls"] if words[:2] == ["create", "instance"]][-1]
        environment = created[created.index("--env") + 1].split(" ")
        assert ("UPS_REMOTE=s3://bucket/ups" in environment) == bool(url)
        assert ("what the machine makes is lost" in capsys.readouterr().err) != bool(url)


def test_the_commands_exit_code_is_ours(cloud):
    assert run("sh", "-c", "exit 3") == 3
    assert cloud["instances"] == []


def test_ctrl_c_ends_the_command_and_gives_the_machine_back(cloud):
    assert run("sh", "-c", "kill -INT $PPID; sleep 60") == 75
    assert cloud["instances"] == []


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_ended(cloud, capsys):
    arguments = ["run", "--gpu", "RTX_4090", "--dollars", "1", "--hours", "0.00005", "--repository", "x"]
    assert rent.main([*arguments, "--", "sleep", "60"]) == 4
    assert "took more than" in capsys.readouterr().err
    assert cloud["instances"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gone": [11]}, "not available"),
        ({"no_network": {"create instance": 1}}, "ConnectionError"),
        ({"lost": {"create instance": 1}}, "ReadTimeout"),
        ({"stuck": [1]}, "no worker after 0.01 minutes (loading Pulling the image)"),
        ({"exits": [1]}, "exited the container ended"),
        ({"dearer": [1]}, "costs 1.30 USD an hour"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_machine_that_does_not_come_up_is_replaced_by_another(cloud, capsys, wrong, told):
    """The offer 21 is of the same machine as 11."""
    cloud.set(**wrong)
    assert run("true", minutes="0.01") == 0
    assert cloud.offers_taken() == [11, 12]
    assert told in capsys.readouterr().err
    assert cloud["instances"] == []


@pytest.mark.slow
def test_nothing_is_rented_above_the_price_and_nothing_tried_twice(cloud, capsys):
    assert run("true", dollars="0.2") == 3
    assert "no offer of at most 0.2 USD an hour" in capsys.readouterr().err
    cloud.set(stuck=[1, 2, 3])
    assert run("true", dollars="1", minutes="0.002", machines="3") == 4
    assert "none of 3 machines came up" in capsys.readouterr().err
    assert run("true", dollars="0.5", minutes="0.002", machines="3") == 3
    assert "no offer but for 2 that were tried" in capsys.readouterr().err
    assert cloud["instances"] == []


@pytest.mark.slow
def test_a_worker_that_never_shows_is_not_waited_for(cloud, capsys, monkeypatch):
    monkeypatch.setattr(rent, "worker_is_online", lambda name: name.endswith("-2"))
    assert run("true", minutes="0.01") == 0
    assert "no worker after 0.01 minutes (running success)" in capsys.readouterr().err


@pytest.mark.parametrize("call", ["show instances", "create instance"])
def test_an_answer_that_is_not_understood_is_asked_for_again(cloud, call):
    cloud.set(garbled={call: 1})
    assert run("true") == 0
    assert cloud["instances"] == []


def test_a_garbled_answer_does_not_end_giving_back(cloud):
    cloud.set(
        instances=[{"id": 5, "machine_id": 1, "label": "ups-a", "actual_status": "running", "dph_total": 1}]
    )
    cloud.set(garbled={"show instances": 2})
    assert rent.main(["destroy"]) == 0
    assert cloud["instances"] == []


def test_a_server_that_is_away_is_asked_again(cloud, monkeypatch):
    answers = iter([StorageError("ConnectError", where="Prefect server"), True])

    def ask(*_: str) -> bool:
        if isinstance(answer := next(answers), StorageError):
            raise answer
        return answer

    monkeypatch.setattr(rent, "worker_is_online", ask)
    assert run("true") == 0
    assert len(cloud.offers_taken()) == 1


def test_what_prefect_raises_is_an_error_of_ours():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(StorageError, match="ConnectError"),
    ):
        ONLINE("ups-1")


@pytest.mark.slow
def test_giving_back_is_tried_again_and_what_stays_is_named(cloud, capsys):
    cloud.set(undestroyed=1, no_network={"show instances": 0, "destroy instance": 1})
    assert run("true") == 0
    assert cloud["instances"] == []
    cloud.set(undestroyed=1000)
    assert run("true") == 4
    [left] = cloud["instances"]
    error = capsys.readouterr().err
    assert f"still rented, and costs money: {left['id']}" in error
    assert "python -m deployments.rent destroy" in error
    assert rent.main(["list"]) == 0
    assert str(left["id"]) in capsys.readouterr().out
    cloud.set(undestroyed=0)
    cloud.set(instances=[left, left | {"id": 7, "label": "of somebody else"}])
    assert rent.main(["destroy"]) == 0
    assert [each["id"] for each in cloud["instances"]] == [7]


def test_what_cannot_work_is_told_before_money_is_spent(cloud, capsys, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert run("true") == 3
    assert "a rented machine cannot reach this" in capsys.readouterr().err
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.com/api")
    cloud.set(no_key=True)
    assert run("true") == 3
    assert "vastai set api-key" in capsys.readouterr().err
    assert run("no-such-command") == 3
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run("true") == 3
    assert "pip install vastai" in capsys.readouterr().err
