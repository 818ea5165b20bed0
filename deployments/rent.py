"""Rent a machine of Vast.ai as a worker for the time of a command.

    python -m deployments.rent run --gpu RTX_4090 --dollars 0.5 -- prefect deployment run burgers-upt/prod --watch

However the command ends, and whatever fails before, the machine is given back; what could not be given back is named.
`list` shows what is rented, `destroy` gives back what a launcher that was killed has left.
"""

import argparse
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deployments import vast
from ups.errors import EXIT_OK, Interrupted, PreflightError, StorageError, UpsError

LABEL = "ups-"
_STORE = ("UPS_REMOTE", "AWS_ENDPOINT_URL_S3")
"""Where results are kept; handed on if set. No secrets: those are blocks of Prefect."""
_POLL_SECONDS = 10.0
_LOOKS = 2
"""That find nothing, before all is taken to be given back: what was just created is listed a moment later."""
_TEARDOWN_TRIES = 12
_FAILED = {"exited", "offline", "unknown", "stopped"}
_STOP = (
    'curl --fail --silent --request PUT --header "Authorization: Bearer $CONTAINER_API_KEY" '
    '--json \'{"state": "stopped"}\' "https://console.vast.ai/api/v0/instances/$CONTAINER_ID/"'
)
"""How a machine stops itself when it is idle; its disk stays, and costs little, until it is destroyed."""
_AT_START = (
    f"export UPS_STOP={shlex.quote(_STOP)}; "
    'git clone --quiet "$UPS_REPOSITORY" "$HOME/ups" && cd "$HOME/ups" && git checkout --quiet "$UPS_COMMIT" && '
    'exec bash deployments/bootstrap.sh >> "$HOME/bootstrap.log" 2>&1'
)
"""The client takes a script of some thousand characters at most: the rest is in the checkout."""


@dataclass(frozen=True)
class Wish:
    """What is to be rented, see the options of `run`."""

    requirements: tuple[str, ...]
    dollars: float
    disk_gigabytes: float
    image: str
    start_minutes: float
    machines: int
    environment: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: that of the command, or of our error."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return options.execute(options)
    except UpsError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments.rent", description="Machines of Vast.ai.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="rent a machine as a worker, run a command here, give the machine back"
    )
    run.add_argument(
        "--gpu", required=True, help="as Vast.ai calls it, with _ for spaces: RTX_4090, H100_SXM"
    )
    run.add_argument("--gpus", type=int, default=1, help="of the machine (default 1)")
    run.add_argument("--dollars", type=float, required=True, help="an hour, at most")
    run.add_argument("--disk", type=float, default=60.0, help="gigabytes (default 60)")
    run.add_argument(
        "--require", action="append", default=[], help="more, as `vastai search offers` takes it; repeatable"
    )
    run.add_argument("--image", default="python:3.11", help="container image with git, make and Python")
    run.add_argument(
        "--start-minutes",
        type=float,
        default=15.0,
        help="until the worker shows; then the machine is replaced",
    )
    run.add_argument("--machines", type=int, default=4, help="that are tried (default 4)")
    run.add_argument(
        "--hours", type=float, default=24.0, help="after which the command is ended (default 24)"
    )
    run.add_argument("--idle-minutes", type=float, default=20.0, help="after which the machine stops itself")
    run.add_argument(
        "--repository", help="address that the machine can clone (default: origin of this checkout)"
    )
    run.add_argument(
        "--pass", dest="passed", action="append", default=[], metavar="NAME",
        help="variable of this environment that the machine gets, too; the vendor can read it; repeatable",
    )  # fmt: skip
    run.add_argument("command", nargs="+", metavar="WORD", help="command, behind --")
    run.set_defaults(execute=_run)
    commands.add_parser("list", help="what is rented by this program").set_defaults(execute=_list)
    commands.add_parser("destroy", help="give all of it back").set_defaults(execute=_destroy)
    return parser


def _run(options: argparse.Namespace) -> int:
    wish = _wish(options)
    with rented(wish):
        command = subprocess.Popen(options.command)
        try:
            return command.wait(3600 * options.hours)
        except subprocess.TimeoutExpired:
            raise StorageError(f"took more than {options.hours:g} hours", where=options.command[0]) from None
        finally:
            if command.poll() is None:
                command.terminate()
                try:
                    command.wait(30)
                except subprocess.TimeoutExpired:
                    command.kill()


def _list(options: argparse.Namespace) -> int:
    del options
    for one in _ours(LABEL):
        print(f"{one.number}  {one.label}  {one.status or 'being prepared'}  {one.dollars:.2f} USD/h")
    return EXIT_OK


def _destroy(options: argparse.Namespace) -> int:
    del options
    give_back(LABEL)
    return EXIT_OK


def _wish(options: argparse.Namespace) -> Wish:
    """What the options ask for.

    Raises:
        PreflightError: a machine could not reach the server, or not clone the code.
    """
    if shutil.which(options.command[0]) is None:
        raise PreflightError("is no command", where=options.command[0], fix="give the command behind --")
    url = os.environ.get("PREFECT_API_URL", "")
    if urlsplit(url).hostname in {None, "localhost", "127.0.0.1", "::1", "0.0.0.0"}:
        raise PreflightError(
            f"{url or 'not set'}: a rented machine cannot reach this",
            where="PREFECT_API_URL",
            fix="set it to an address of the server that is reached from outside, and protect that "
            "(PREFECT_SERVER_API_AUTH_STRING)",
        )
    handed_on = {*options.passed, *(name for name in _STORE if name in os.environ)}
    for name in sorted(handed_on):
        if not re.fullmatch(r"[^\s'\"]+", os.environ.get(name, "")):
            raise PreflightError(
                "is not set, or has spaces or quotes, which the client does not hand on",
                where=name,
                fix=f"export {name}=...",
            )
    if "UPS_REMOTE" not in handed_on:
        _say(
            "warning: UPS_REMOTE is not set: what the machine makes is lost with it (docs/how-to/rented-machine.md)"
        )
    return Wish(
        requirements=(
            f"gpu_name={options.gpu}",
            f"num_gpus={options.gpus}",
            "reliability>=0.98",
            "inet_down>=200",
            *options.require,
        ),
        dollars=options.dollars,
        disk_gigabytes=options.disk,
        image=options.image,
        start_minutes=options.start_minutes,
        machines=options.machines,
        environment={
            "PREFECT_API_URL": url,
            "UPS_REPOSITORY": options.repository or _git("remote", "get-url", "origin"),
            "UPS_COMMIT": _git("rev-parse", "HEAD"),
            "UPS_IDLE_MINUTES": f"{options.idle_minutes:g}",
            **{name: os.environ[name] for name in handed_on},
        },
    )


def _git(*arguments: str) -> str:
    checkout = Path(__file__).parents[1]
    done = subprocess.run(
        ["git", "-C", checkout, *arguments], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode != 0:
        raise PreflightError(
            done.stderr.strip(), where="git", fix="give --repository, in a checkout with git"
        )
    return done.stdout.strip()


@contextmanager
def rented(wish: Wish) -> Iterator[vast.Instance]:
    """A machine whose worker is online, for the time of the block.

    Raises:
        PreflightError: there is no offer, or no client.
        StorageError: no machine came up, or one could not be given back.
    """
    label = f"{LABEL}{secrets.token_hex(4)}"
    try:
        yield _started(wish, label)
    finally:
        # A second Ctrl-C would leave what costs money. What is being created has our label already.
        ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        try:
            give_back(label)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _started(wish: Wish, label: str) -> vast.Instance:
    """The first machine that comes up, of those that are tried one after the other."""
    tried: set[int] = set()
    for number in range(1, wish.machines + 1):
        offers = vast.search(wish.requirements, dollars=wish.dollars, disk_gigabytes=wish.disk_gigabytes)
        offer = next((offer for offer in offers if offer.machine not in tried), None)
        if offer is None:
            others = f" but for {len(tried)} that were tried" if tried else ""
            raise PreflightError(
                f"no offer{others} of at most {wish.dollars:g} USD an hour: {' '.join(wish.requirements)}",
                where="Vast.ai",
                fix="raise --dollars, choose another --gpu, or wait",
            )
        tried.add(offer.machine)
        name = f"{label}-{number}"
        _say(f"{name}: {offer.gpu} for {offer.dollars:.2f} USD an hour (offer {offer.number})")
        try:
            instance = vast.create(
                offer,
                label=name,
                image=wish.image,
                disk_gigabytes=wish.disk_gigabytes,
                environment=wish.environment | {"UPS_WORKER": name},
                at_start=_AT_START,
            )
        except vast.Refused as error:
            _say(f"{name}: {error}; the next offer is tried")
            continue
        found = _awaited(instance, name, wish)
        if isinstance(found, vast.Instance):
            _say(f"{name}: its worker is online")
            return found
        _say(f"{name}: {found}; it is replaced")
        give_back(name)
    raise StorageError(
        f"none of {wish.machines} machines came up within {wish.start_minutes:g} minutes",
        where="Vast.ai",
        fix="repeat the command, or give more --start-minutes or --machines",
    )


def _awaited(number: int, name: str, wish: Wish) -> vast.Instance | str:
    """The machine, once its worker is online; or why it is not to be waited for any longer."""
    gives_up_at = time.monotonic() + 60 * wish.start_minutes
    said: str | None = None
    while True:
        try:
            found = next((one for one in vast.instances() if one.number == number), None)
            if found is not None:
                said = f"{found.status or 'being prepared'} {found.message}".strip()
                if found.dollars > wish.dollars:
                    return f"it costs {found.dollars:.2f} USD an hour, and not what was offered"
                if found.status in _FAILED:
                    return said
                if found.status == "running" and worker_is_online(name):
                    return found
        except StorageError as error:  # whether it is worth waiting, the next look tells
            said = str(error)
        if time.monotonic() > gives_up_at:
            return f"no worker after {wish.start_minutes:g} minutes ({said or 'it is not listed'})"
        time.sleep(_POLL_SECONDS)


def worker_is_online(name: str) -> bool:
    """Whether the work pool has an online worker of a name.

    Raises:
        StorageError: the server does not say.
    """
    # Prefect takes a second or two to import, which `list` and `--help` should not cost.
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    from deployments.server import POOL

    try:
        with get_client(sync_client=True) as client:
            workers = client.read_workers_for_work_pool(POOL)
    except (HTTPError, PrefectException) as error:
        raise StorageError(f"{error!r}", where="Prefect server") from None
    return any(worker.name == name and worker.status == "ONLINE" for worker in workers)


def _ours(label: str) -> list[vast.Instance]:
    return [one for one in vast.instances() if (one.label or "").startswith(label)]


def give_back(label: str) -> None:
    """Destroy all machines whose label begins so, and look whether they are gone.

    Raises:
        StorageError: some are not; names them.
    """
    left, looks, problem = None, 0, ""
    for _ in range(_TEARDOWN_TRIES):
        try:
            left = _ours(label)
            looks = 0 if left else looks + 1
            if looks == _LOOKS:
                return
            for one in left:
                vast.destroy(one.number)
                _say(f"{one.label}: given back")
        except vast.Refused as error:
            problem = str(error)
        time.sleep(_POLL_SECONDS)
    numbers = "what is not known" if left is None else ", ".join(str(one.number) for one in left)
    raise StorageError(
        f"still rented, and costs money: {numbers} ({problem})",
        where="Vast.ai",
        fix="python -m deployments.rent destroy, or on https://cloud.vast.ai/instances/",
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
