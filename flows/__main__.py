"""Run a flow from the checkout: `python -m flows CONFIG [--set KEY=VALUE]`.

With PREFECT_API_URL set the run shows on that server; without it Prefect starts a temporary one, or none where all
stages are sealed.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ups.artifacts import Store
from ups.artifacts.files import read_json
from ups.commands.arguments import add_configuration
from ups.commands.run import run_and_show
from ups.commands.tables import console, result_tables, show
from ups.config.load import load_configuration, parse_overrides
from ups.errors import EXIT_OK, Interrupted, PreflightError, StorageError, UpsError
from ups.pipeline.device import require_machine, resolve
from ups.pipeline.plan import make_plan
from ups.pipeline.run import OUTSIDE, find_root, overrides_by_seed

PREFECT_DEFAULTS = {
    # The temporary server is given 20 s, and needs more at its first start on a busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def main() -> int:
    """Run the flow and end with the result table and the path of the report; returns the exit code."""
    options = _parse()
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Prefect hands SIGTERM on when its run has ended. The default action would end this process at once,
    # and leave the temporary server behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        overrides = parse_overrides(options.assignments)
        # A typo needs no server to be found.
        configuration = resolve(load_configuration(options.config, overrides))
        require_machine(configuration)
        if _is_sealed(options.config, overrides) and not _has_server():
            console().print("all stages are sealed, and no Prefect server stands that would show them")
            run_and_show(options.config, overrides)
            return EXIT_OK
        _require_server()
        if configuration.execution.device == "cuda" and not _has_server():
            limit_the_temporary_server()
        report = _run(options.config, overrides, on_burgers_only=set(configuration.problems) == {"burgers1d"})
    except UpsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command resumes\n")
        return Interrupted.exit_code
    # The temporary server announces its end when the interpreter exits; the result is to come last.
    logging.getLogger("prefect").setLevel(logging.WARNING)
    for name in ("metrics.json", OUTSIDE):
        for table in result_tables(read_json(report.parent / name)):
            show(table)
    console().print(f"report: {report}", soft_wrap=True)
    return EXIT_OK


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flows",
        description="Run the flow of a configuration here, shown by the server of PREFECT_API_URL or a temporary one; "
        "by none where all is sealed and no server stands.",
        epilog="Exit codes are those of `ups --help`.",
    )
    add_configuration(parser)
    return parser.parse_args()


def _is_sealed(config: Path, overrides: dict[str, Any]) -> bool:
    """Whether nothing is left to build, for any seed."""
    store = Store(find_root(None))
    return all(
        stage.verdict == "HIT"
        for chosen in overrides_by_seed(config, overrides)
        for stage in make_plan(resolve(load_configuration(config, chosen)), store)
    )


def _has_server() -> bool:
    """Whether the environment or the profile names a server; a temporary one takes longer to start than the rest."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() is not None


def _require_server() -> None:
    """Find the server of PREFECT_API_URL, or have Prefect start a temporary one, which ends with this process.

    Raises:
        PreflightError: the server does not answer, or the temporary one does not start.
    """
    # Prefect takes a second or two to import, which a wrong configuration should not cost.
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    # A terminal's Ctrl-C reaches all processes of its group. A temporary server that ended by it would leave
    # the flow waiting for minutes to report its last state; as its child it inherits which signals are blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        problem = get_client(sync_client=True).api_healthcheck()
    except RuntimeError as error:  # the temporary server did not start; the message has its output
        problem = error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if problem is not None:
        raise PreflightError(
            f"does not answer: {problem}",
            where=f"Prefect server {PREFECT_API_URL.value() or '(temporary)'}",
            fix="start your server (`prefect server start`), or unset PREFECT_API_URL for a temporary one, and "
            "give that more time with PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS",
        )


def limit_the_temporary_server() -> None:
    """Nobody but this run will ask it, and nobody has created its limit, or freed the slot of a run that was killed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    from tasks.gpu import LIMIT

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))


def _run(config: Path, overrides: dict[str, Any], *, on_burgers_only: bool) -> Path:
    """The flow of the configuration's problems.

    Raises:
        UpsError: of the stage that failed.
        StorageError: the server went away and did not come back.
    """
    from httpx import HTTPError

    from flows.burgers_upt import burgers_upt
    from flows.experiment import Experiment
    from flows.pdebench_upt import pdebench_upt

    flow = burgers_upt if on_burgers_only else pdebench_upt
    try:
        return Path(flow(Experiment(config=str(config), overrides=overrides)))
    except HTTPError as error:
        raise StorageError(
            f"went away: {error}",
            where="Prefect server",
            fix="repeat the command when it is back; what was sealed or checkpointed is not done again",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
