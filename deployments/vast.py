"""Vast.ai by its command-line client (`pip install vastai`, tried with the output of 1.9): offers and machines as plain data.

The client says much by what it prints and little by its exit code: where the server refuses it ends with 0 and prints nothing on
standard output, and whether a machine is gone only the list of machines tells.

Rejected: its Python package, which would be a dependency of ours; its HTTP interface, whose retries and credentials the
client knows.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ups.errors import PreflightError, StorageError

_SECONDS = 300.0  # of one command; the client tries again by itself


class Refused(StorageError):
    """The server did not do what it was asked, or was not reached."""


@dataclass(frozen=True)
class Offer:
    """What can be rented.

    Attributes:
        machine: the same for all offers of one machine.
        dollars: an hour, with the disk that was asked for.
    """

    number: int
    machine: int
    dollars: float
    gpu: str


@dataclass(frozen=True)
class Instance:
    """What is rented.

    Attributes:
        status: None as long as the machine is being prepared; then "loading", "running", "exited", "offline", ...
        message: of the machine about its status.
    """

    number: int
    label: str | None
    status: str | None
    message: str
    dollars: float


def search(requirements: Sequence[str], *, dollars: float, disk_gigabytes: float) -> list[Offer]:
    """Offers of at most a price, cheapest first.

    requirements: in the client's language, for example "gpu_name=RTX_4090".
    """
    query = [*requirements, f"dph_total<={dollars}", f"disk_space>={disk_gigabytes}"]
    rows = _call(
        "search", "offers", " ".join(query), "--order", "dph_total", "--storage", f"{disk_gigabytes}"
    )  # fmt: skip
    with _understood(rows):
        found = [
            Offer(
                row["id"],
                row["machine_id"],
                float(row["dph_total"]),
                f"{row['num_gpus']} x {row['gpu_name']}",
            )
            for row in rows
        ]
    # Asked for above already; money does not depend on how a server reads a query.
    return sorted((offer for offer in found if offer.dollars <= dollars), key=lambda offer: offer.dollars)


def create(
    offer: Offer,
    *,
    label: str,
    image: str,
    disk_gigabytes: float,
    environment: Mapping[str, str],
    at_start: str,
) -> int:
    """Rent; the number of the instance.

    environment: values without spaces and quotes.

    Raises:
        Refused: somebody else has it by now.
    """
    # The client splits at spaces, and knows no quotes as shells do.
    docker = " ".join(f"-e {name}={value}" for name, value in environment.items())
    answer = _call(
        "create", "instance", str(offer.number), "--image", image, "--disk", f"{disk_gigabytes}", "--label", label,
        "--env", docker, "--onstart-cmd", at_start, "--ssh", "--direct", "--cancel-unavail",
    )  # fmt: skip
    with _understood(answer):
        if not answer["success"]:
            raise Refused(f"refused offer {offer.number}: {answer}", where="vastai")
        return int(answer["new_contract"])


def instances() -> list[Instance]:
    """All that are rented."""
    rows = _call("show", "instances")
    with _understood(rows):
        return [
            Instance(
                row["id"],
                row.get("label"),
                row.get("actual_status"),
                row.get("status_msg") or "",
                float(row["dph_total"]),
            )
            for row in rows
        ]


def destroy(number: int) -> None:
    """End renting, and lose the machine's disk. That it is gone `instances` tells, and nothing else."""
    _call("destroy", "instance", str(number), "--yes", answers=False)


@contextmanager
def _understood(answer: Any) -> Iterator[None]:
    """Raises Refused: the answer is another than it is taken for. Whoever gives machines back tries again then."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"is not understood ({error!r}): {str(answer)[:200]}", where="vastai") from None


def _call(*words: str, answers: bool = True) -> Any:
    """What a command prints, of JSON; None of one that prints nothing.

    Raises:
        PreflightError: the client is not installed, or has no key.
        Refused: by the server, or it was not reached.
    """
    try:
        # A terminal's Ctrl-C is for us, who then destroy what the client may be about to create.
        done = subprocess.run(
            ["vastai", *words, "--raw"],
            capture_output=True, text=True, timeout=_SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise PreflightError(
            "is not installed", where="vastai", fix="pip install vastai, and vastai set api-key KEY"
        ) from None
    except OSError as error:
        raise Refused(f"`{words[0]} {words[1]}` cannot be started: {error}", where="vastai") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"`{words[0]} {words[1]}` says nothing for {_SECONDS:g} s", where="vastai") from None
    error = _error(done.stderr)
    if error.get("status_code") == 401:
        raise PreflightError(
            f"has no valid key: {error.get('msg')}", where="vastai", fix="vastai set api-key KEY"
        )
    if error or done.returncode != 0:
        said = error.get("msg") or (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Refused(f"`{words[0]} {words[1]}`: {said}", where="vastai")
    if not answers:
        return None
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise Refused(f"`{words[0]} {words[1]}` is no JSON: {done.stdout[:200]!r}", where="vastai") from None


def _error(text: str) -> dict[str, Any]:
    """The error that the client printed; empty if it printed none."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:  # it only looks like one: the exit code says whether it was an error
                continue
            if found.get("error"):
                return found
    return {}
