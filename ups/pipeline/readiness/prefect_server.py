"""The Prefect server as this library sees it: an address that answers HTTP. Prefect itself is not imported."""

import base64
import json
import os
import socket
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

DEFAULT_PORT = 4200
_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """What a server says of itself.

    Attributes:
        version: of Prefect there; None where something else answers, or nothing.
        ahead: seconds by which its clock is ahead of ours, to about half a second; None where it does not tell.
        problem: why there is no version.
        guarded: it is a Prefect server, which does not take our password.
    """

    version: str | None = None
    ahead: float | None = None
    problem: str | None = None
    guarded: bool = False


def configured_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """PREFECT_API_URL; None: flows start a server for themselves."""
    return _setting("PREFECT_API_URL", environment)


def configured_password(environment: Mapping[str, str] = os.environ) -> str | None:
    """PREFECT_API_AUTH_STRING, "USER:PASSWORD"."""
    return _setting("PREFECT_API_AUTH_STRING", environment)


def _setting(name: str, environment: Mapping[str, str]) -> str | None:
    """Of the environment, or of Prefect's active profile."""
    if value := environment.get(name):
        return value
    home = Path(environment.get("PREFECT_HOME", Path.home() / ".prefect"))
    path = Path(environment.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    if not path.exists():
        return None
    profiles = tomllib.loads(path.read_text())
    profile = environment.get("PREFECT_PROFILE", profiles.get("active", ""))
    return profiles.get("profiles", {}).get(profile, {}).get(name)


def ask(url: str, password: str | None = None) -> Answer:
    """What answers at an address such as http://127.0.0.1:4200/api."""
    headers = {}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    request = urllib.request.Request(f"{url.rstrip('/')}/admin/version", headers=headers)
    begun = time.time()
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            date, body = response.headers.get("Date"), response.read(1000)
        middle = (begun + time.time()) / 2
        version = json.loads(body)
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            return Answer(problem=f"is no Prefect server (HTTP {error.code})")
        return Answer(problem=f"asks for credentials (HTTP {error.code})", guarded=_is_healthy(url))
    except ValueError:
        return Answer(problem="is no Prefect server")
    except OSError as error:
        return Answer(problem=f"does not answer: {getattr(error, 'reason', error)}")
    if not isinstance(version, str):
        return Answer(problem="is no Prefect server")
    # The header has whole seconds, cut off: half of one is what it lacks on average.
    ahead = None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - middle
    return Answer(version, ahead)


def _is_healthy(url: str) -> bool:
    """Whether a Prefect server answers, which says so much without a password, too."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_SECONDS) as response:
            return json.loads(response.read(1000)) is True
    except (OSError, ValueError):  # nobody, or somebody else
        return False


def listens(port: int) -> bool:
    """Whether something on this machine answers at a port."""
    with socket.socket() as probe:
        probe.settimeout(_SECONDS)
        return probe.connect_ex(("127.0.0.1", port)) == 0
