"""Register everything on a server: `python -m deployments.deploy`, also `make deploy`.

The deployments of prefect.yaml, and the work pool, limit and automation that they need. Whatever can be wrong in the file is found
before the first request, so that nothing is registered by half. Again, it brings all up to date.
"""

import argparse
import os
import subprocess
import sys
from asyncio import run
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from prefect._vendor.croniter import CroniterBadDateError
from prefect.cli.deploy._models import DeploymentConfig
from prefect.exceptions import PrefectException
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule, RRuleSchedule

from deployments import zombies
from deployments.server import POOL, answers, connected, no_answer, prepare, server_url
from ups.errors import EXIT_OK, ConfigurationError, StorageError, UpsError

CHECKOUT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("prefect.yaml")


def checked(file: Path) -> list[str]:
    """The names of the file's deployments, FLOW/NAME.

    Raises:
        ConfigurationError: the file cannot be read, or one of them would never run.
    """
    try:
        declared = yaml.safe_load(file.read_text())["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigurationError(f"has no list of deployments ({error})", where=str(file)) from None
    names = [_checked(deployment, f"{file}: {deployment.get('name')}") for deployment in declared]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigurationError(
            f"declares {twice[0]} twice", where=str(file), fix="the second would replace the first: rename it"
        )
    return names


def _checked(deployment: dict[str, Any], where: str) -> str:
    try:
        DeploymentConfig.model_validate(deployment)
        # Prefect passes over keys that it does not know: a deployment with `shedules` would never run.
        if unknown := deployment.keys() - DeploymentConfig.model_fields.keys():
            raise ValueError(f"unknown key {min(unknown)!r}")
        if (pool := deployment["work_pool"]["name"]) != POOL:
            raise ValueError(f"work pool {pool!r} is not {POOL!r}")
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        flow.validate_parameters(deployment.get("parameters") or {})
        for schedule in deployment.get("schedules") or []:
            _require_a_date(schedule)
        return f"{flow.name}/{deployment['name']}"
    except KeyError as error:
        problem = f"{error} is missing"
    except (ValueError, PrefectException, ImportError, AttributeError) as error:
        problem = str(error)
    raise ConfigurationError(problem, where=where, fix="correct it; nothing was registered")


def _require_a_date(schedule: dict[str, Any]) -> None:
    """That a time of a schedule will come; an interval always has one.

    Raises:
        ValueError: none will, or the schedule is not valid.
    """
    if "interval" in schedule:
        return
    given = {key: schedule[key] for key in ("cron", "rrule", "timezone", "day_or") if key in schedule}
    valid = (CronSchedule if "cron" in given else RRuleSchedule).model_validate(given)
    try:
        dates = run(valid.get_dates(1))
    except CroniterBadDateError:
        dates = []
    if not dates:
        raise ValueError(f"schedule {given} never fires")


def main() -> int:
    """Check the file, then register; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.deploy",
        description="Register the deployments, work pool, limit and automation on the server of PREFECT_API_URL, or that of "
        "`make serve` on this machine; again to bring them up to date.",
        epilog="Exit codes are those of `ups --help`.",
    )
    parser.parse_args()
    os.chdir(CHECKOUT)  # where Prefect imports the flows from
    url = server_url()
    try:
        names = checked(FILE)
        if not answers(url):
            raise no_answer(url)
        with connected(url) as client:
            for part in prepare(client):
                print(f"created {part}")
            print(f"automation {zombies.AUTOMATION.name!r}: {zombies.register(client)}")
        _deploy(url)
    except HTTPError as error:
        sys.stderr.write(f"Prefect server {url}: {error}\n  fix: repeat the command\n")
        return StorageError.exit_code
    except UpsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    print("deployed", *names, sep="\n  ")
    print(f"start one: PREFECT_API_URL={url} prefect deployment run {names[0]} --watch")
    return EXIT_OK


def _deploy(url: str) -> None:
    """By Prefect's own command, which reads the file as its documentation says.

    Raises:
        StorageError: it failed; after the checks that is the server's or the network's fault.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)],
        env=os.environ | {"PREFECT_API_URL": url, "DO_NOT_TRACK": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise StorageError(
            f"prefect deploy failed:\n{done.stdout}", where=str(FILE), fix="repeat the command"
        )


if __name__ == "__main__":
    sys.exit(main())
