"""`python -m deployments.deploy`: what is wrong is found before anything is registered; again, it changes nothing."""

import pytest
import yaml

from deployments import deploy
from ups.errors import ConfigurationError

GOOD = {
    "name": "night",
    "entrypoint": "flows.burgers_upt:burgers_upt",
    "parameters": {"experiment": {"config": "burgers_tiny"}},
    "work_pool": {"name": "ups"},
    "schedules": [{"cron": "0 3 * * *", "timezone": "Europe/Berlin"}],
}


def _file(tmp_path, *declared):
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": declared}))
    return path


def test_all_that_are_promised_are_declared():
    promised = {
        "burgers-upt/prod",
        "burgers-upt/demo",
        "pdebench-upt/2task",
        "validate-optimizations/prod",
    }
    assert promised <= set(deploy.checked(deploy.FILE))


def test_a_good_one_is_accepted(tmp_path):
    assert deploy.checked(_file(tmp_path, GOOD)) == ["burgers-upt/night"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schedules": [{"cron": "0 0 31 2 *"}]}, "'0 0 31 2 *'} never fires"),
        ({"schedules": [{"rrule": "FREQ=DAILY;UNTIL=20200101T000000"}]}, "never fires"),
        ({"schedules": [{"cron": "61 * * * *"}]}, "Invalid cron"),
        ({"schedules": [{"cron": "0 3 * * *", "timezone": "Europe/Berlim"}]}, "Europe/Berlim"),
        ({"shedules": [{"cron": "0 3 * * *"}]}, "unknown key 'shedules'"),
        ({"entrypoint": "flows.burgers_uptt:burgers_upt"}, "burgers_uptt"),
        ({"entrypoint": "flows.burgers_upt:burgers"}, "burgers"),
        ({"parameters": {"experiment": {"config": "burgers_tony"}}}, "burgers_tony"),
        ({"work_pool": {"name": "upps"}}, "'upps' is not 'ups'"),
        ({"work_pool": {}}, "'name' is missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_one_that_would_never_run_is_refused(tmp_path, changes, told):
    with pytest.raises(ConfigurationError, match="night: ") as refused:
        deploy.checked(_file(tmp_path, GOOD, GOOD | changes))
    assert told in str(refused.value)


def test_one_name_twice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="declares burgers-upt/night twice"):
        deploy.checked(_file(tmp_path, GOOD, GOOD))


def test_a_file_without_deployments_is_refused(tmp_path):
    path = tmp_path / "prefect.yaml"
    for text in ("", "deployments: [", "name: ups"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"prefect\.yaml: has no list of deployments"):
            deploy.checked(path)


def test_nothing_is_asked_of_a_server_for_a_wrong_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deploy, "FILE", _file(tmp_path, GOOD, GOOD | {"entrypoint": "flows.none:none"}))
    monkeypatch.setattr(deploy, "answers", lambda url: pytest.fail(f"asked {url}"))
    monkeypatch.setattr("sys.argv", ["deploy"])
    assert deploy.main() == 2
    assert "nothing was registered" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_named(monkeypatch, capsys):
    monkeypatch.setattr(deploy, "server_url", lambda: "http://127.0.0.1:9/api")
    monkeypatch.setattr("sys.argv", ["deploy"])
    assert deploy.main() == 3
    assert "http://127.0.0.1:9/api: does not answer\n  fix: make serve" in capsys.readouterr().err
