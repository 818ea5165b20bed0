"""Links in the UI lead to reports, and what serves them serves nothing else."""

import re
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from deployments.reports import Reports
from tasks.report_links import REPORTS_URL, link_to

SERVED = ("runs/a run of 50 %/report.html", "sweeps/nine-1a2b/report.html", "nightly/full-1a2b.html")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    for file in (*SERVED, "artifacts/operator/1a2b/model.safetensors", "secret.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Reports, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("report", SERVED)
def test_a_link_leads_to_the_report(tmp_path, monkeypatch, url, report):
    monkeypatch.delenv(REPORTS_URL, raising=False)
    assert REPORTS_URL in link_to(tmp_path / report, tmp_path, "all")
    monkeypatch.setenv(REPORTS_URL, f"{url}/")
    found = re.fullmatch(r"\[Whole report: all\]\((\S+)\)", link_to(tmp_path / report, tmp_path, "all"))
    assert found is not None
    assert httpx.get(found[1]).text == report


@pytest.mark.parametrize(
    "path", ["", "secret.txt", "runs/../secret.txt", "runs/%2e%2e/secret.txt", "artifacts/", "artifacts/operator/1a2b/model.safetensors"]
)  # fmt: skip
def test_nothing_else_is_served(url, path):
    with httpx.Client() as client:
        request = client.build_request("GET", url)
        request.url = request.url.copy_with(raw_path=f"/{path}".encode())  # as it is: clients tidy paths
        assert client.send(request).status_code == 404
