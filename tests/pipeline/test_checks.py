"""Each check of `ups doctor` by itself: facts in, a finding out; and what is found out about a server and a root."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ups.errors import PreflightError
from ups.pipeline.readiness import checks, prefect_server
from ups.pipeline.readiness.checks import Finding
from ups.pipeline.readiness.prefect_server import Answer, ask, configured_address, configured_password

PINS = [
    "torch>=2.11",
    "numpy>=2.1",
    'prefect<3.9,>=3.8; extra == "flows"',
    'fastapi<0.151,>=0.139; extra == "flows"',
    'sqlalchemy<2.1,>=2.0; extra == "flows"',
    'wandb>=0.19; extra == "tracking"',
    'pytest>=8; extra == "dev"',
    'universal-physics-stack[flows]; extra == "dev"',
]
GOOD = {
    "torch": "2.13.0+cpu",
    "numpy": "2.2",
    "prefect": "3.8.8",
    "fastapi": "0.142.2",
    "sqlalchemy": "2.0.58",
}


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in findings}


def problem(findings: list[Finding]) -> Finding:
    [found] = [finding for finding in findings if finding.verdict == "problem"]
    assert found.fix
    return found


def test_versions_as_pinned():
    findings = checks.of_versions(PINS, GOOD.get)
    assert set(verdicts(findings).values()) == {"ok"}
    assert [finding.what for finding in findings][:4] == ["torch", "prefect", "fastapi", "sqlalchemy"]
    assert findings[-1].found == "not installed: wandb (tracking)"


@pytest.mark.parametrize(
    ("change", "told", "fix"),
    [
        ({"fastapi": "0.151.0"}, "Prefect's server does not start", "pip install 'fastapi<0.151,>=0.139'"),
        ({"sqlalchemy": "2.1.0"}, "schedules never fire", "sqlalchemy<2.1"),
        ({"prefect": "3.9.0"}, "not tried", "prefect<3.9"),
        ({"numpy": None}, "is not installed; wanted >=2.1", "numpy>=2.1"),
        ({"wandb": "0.1"}, "0.1, wanted >=0.19", "wandb>=0.19"),
    ],
)
def test_a_version_that_is_not_as_pinned(change, told, fix):
    found = problem(checks.of_versions(PINS, (GOOD | change).get))
    assert found.what == next(iter(change))
    assert told in found.found
    assert fix in found.fix


CPU = {"cuda": None, "driver": None, "problem": "torch finds none", "devices": []}
CARD = {"name": "H100", "total_bytes": 80e9, "free_bytes": 79e9, "problem": None}
GPU = {"cuda": "12.8", "driver": "580.1", "problem": None, "devices": [CARD]}


@pytest.mark.parametrize(
    ("report", "wanted", "worst", "told"),
    [
        (CPU, "auto", "ok", "the CPU computes"),
        (CPU, "cuda", "problem", "torch finds none"),
        (GPU, "cuda", "ok", "79.0 of 80.0 GB free, driver 580.1"),
        (CPU | {"driver": "580.1"}, "auto", "problem", "for CPUs, and there is a GPU"),
        (GPU | {"devices": [], "problem": "driver too old"}, "auto", "problem", "driver too old"),
        (GPU | {"devices": [CARD | {"free_bytes": 1e9}]}, "auto", "warning", "1.0 of 80.0 GB free"),
        (GPU | {"devices": [CARD | {"problem": "no kernel"}]}, "auto", "problem", "no kernel"),
        ({"error": "ImportError: libcudart"}, "cpu", "problem", "libcudart"),
    ],
)
def test_torch(report, wanted, worst, told):
    findings = checks.of_torch(report, wanted)
    order = ["ok", "warning", "problem"]
    assert max((finding.verdict for finding in findings), key=order.index) == worst
    assert any(told in finding.found for finding in findings)
    assert all(finding.fix for finding in findings if finding.verdict != "ok")


def test_server_and_clock():
    assert verdicts(checks.of_server(None, None, "3.8.8")) == {"Prefect server": "ok"}
    url = "http://host:4200/api"
    assert verdicts(checks.of_server(url, Answer("3.8.8", 0.4), "3.8.8")) == {
        "Prefect server": "ok",
        "clock": "ok",
    }
    assert verdicts(checks.of_server(url, Answer("3.8.1", -40.0), "3.8.8")) == {
        "Prefect server": "warning",
        "clock": "warning",
    }
    away = problem(checks.of_server(url, Answer(problem="does not answer: refused"), "3.8.8"))
    assert away.found == f"{url} does not answer: refused"
    guarded = checks.of_server(url, Answer(problem="asks for credentials", guarded=True), "3.8.8")
    assert verdicts(guarded) == {"Prefect server": "warning"}


def test_port():
    assert checks.of_port(4200, taken=False, answer=None).verdict == "ok"
    assert checks.of_port(4200, taken=True, answer=Answer("3.8.8")).verdict == "ok"
    assert checks.of_port(4200, taken=True, answer=Answer(problem="is no server")).verdict == "problem"
    assert checks.of_port(4200, taken=True, answer=Answer(problem="asks", guarded=True)).verdict == "ok"


@pytest.mark.parametrize(
    ("files", "locked", "infiniband", "expected"),
    [
        (-1, -1, True, ["ok", "ok"]),
        (1024, 8 << 20, False, ["warning", "ok"]),
        (65536, 8 << 20, True, ["ok", "warning"]),
    ],
)
def test_limits(files, locked, infiniband, expected):
    found = checks.of_limits(files, locked, infiniband=infiniband)
    assert [finding.verdict for finding in found] == expected


def test_space_is_counted_stage_by_stage_with_a_margin():
    needed = {"download": 50_000_000, "operator": 45_000_000}
    assert list(verdicts(checks.of_space(105_000_000, needed)).values()) == ["ok", "ok"]
    assert list(verdicts(checks.of_space(104_000_000, needed)).values()) == ["ok", "problem"]
    assert [checks.of_space(free, {})[0].verdict for free in (10**8, 2 * 10**9, 10**11)] == [
        "problem",
        "warning",
        "ok",
    ]


def test_code():
    assert checks.of_code(None, changed=False).verdict == "ok"
    assert checks.of_code("a" * 40, changed=True).verdict == "warning"


def test_a_root_is_tried_and_nothing_is_left(tmp_path, monkeypatch):
    assert checks.of_root(tmp_path / "later").verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert checks.of_root(tmp_path / "file").verdict == "problem"
    monkeypatch.setattr(checks.fcntl, "flock", lambda *_: None)
    assert "same lock" in checks.of_root(tmp_path).found


def test_problems_are_told_together():
    findings = [Finding("a", "problem", "is missing", "bring it"), Finding("b", "warning", "odd", "look")]
    with pytest.raises(PreflightError, match=r"a: is missing\n    fix: bring it$"):
        checks.require_no_problem(findings, where="here")
    checks.require_no_problem(findings[1:], where="here")


def test_the_servers_address_is_in_the_environment_or_in_the_profile(tmp_path):
    home = {"PREFECT_HOME": str(tmp_path)}
    assert configured_address(home) is None
    (tmp_path / "profiles.toml").write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://team:4200/api"\n[profiles.local]\n'
        'PREFECT_API_AUTH_STRING = "ups:word"\n'
    )
    assert configured_address(home) == "http://team:4200/api"
    assert configured_address(home | {"PREFECT_PROFILE": "local"}) is None
    assert configured_address(home | {"PREFECT_API_URL": "http://mine/api"}) == "http://mine/api"
    assert configured_password(home) is None
    assert configured_password(home | {"PREFECT_PROFILE": "local"}) == "ups:word"


@contextmanager
def answering(
    status: int, body: bytes, *, authorization: str | None = None, health: bytes = b""
) -> Iterator[str]:
    """authorization: without which the status is 401, but for /health."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_health = self.path == "/api/health"
            allowed = is_health or authorization in {None, self.headers["Authorization"]}
            self.send_response(status if allowed else 401)
            self.end_headers()
            self.wfile.write(health if is_health else body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_what_answers_at_an_address():
    with answering(200, json.dumps("3.8.8").encode()) as url:
        answer = ask(url)
        assert answer.version == "3.8.8"
        assert answer.ahead is not None
        assert abs(answer.ahead) < 60
        assert prefect_server.listens(int(url.split(":")[2].removesuffix("/api")))
    with answering(200, b"<html>") as url:
        assert ask(url).problem == "is no Prefect server"
    with answering(404, b"") as url:
        assert "HTTP 404" in str(ask(url).problem)
    with answering(401, b"") as url:
        assert "credentials" in str(ask(url).problem)
        assert not ask(url).guarded, "whatever it is, it does not say that it is healthy"
    assert "refused" in str(ask(url).problem)


def test_a_server_with_a_password():
    with answering(200, b'"3.8.8"', authorization="Basic dXBzOndvcmQ=", health=b"true") as url:
        assert ask(url, "ups:word").version == "3.8.8"
        for password in (None, "ups:wrong"):
            answer = ask(url, password)
            assert (answer.version, answer.guarded) == (None, True)
