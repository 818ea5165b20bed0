"""What every transfer of these tests has in common."""

from pathlib import Path

import certifi
import pytest

END = "-----END CERTIFICATE-----\n"


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory) -> Path:
    """A single certificate of those that are trusted: a client that reads all of them starts ten times slower."""
    path = tmp_path_factory.mktemp("trusted") / "one.pem"
    path.write_text(Path(certifi.where()).read_text().partition(END)[0] + END)
    return path


@pytest.fixture(autouse=True)
def _of_this_host_only(monkeypatch, one_authority):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_FILE", str(one_authority))
