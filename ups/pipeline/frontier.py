"""What a trained configuration costs beside the solvers that it replaces: measured, written down and drawn, in processes of their own."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact, Store
from ups.artifacts.files import write_json, write_text
from ups.config import Configuration
from ups.errors import ConfigurationError
from ups.pipeline.compile_cache import compile_cache
from ups.pipeline.plan import make_plan
from ups.pipeline.tool_process import run_tool

DIRECTORY = "frontier"
"""Below the root, where results are kept."""
_LAST = "consistency"
"""The last training: with it, every row of the table can forecast."""

Output = Callable[[str], None]


def chosen_problem(configuration: Configuration, name: str | None) -> str:
    """The problem that is measured.

    Raises:
        ConfigurationError: the configuration has no such problem, or several and none was named.
    """
    names = list(configuration.problems)
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        found = "several problems" if name is None else f"no problem {name!r}"
        raise ConfigurationError(
            f"{configuration.name} has {found}", where="--problem", fix=f"name one of {', '.join(names)}"
        )
    return name


def require_page(page: Path) -> None:
    """Before anything is measured.

    Raises:
        ConfigurationError: the page cannot be written there, or would take the place of its record.
    """
    if page.suffix != ".html":
        raise ConfigurationError(
            "does not end in .html", where=f"--report {page}", fix="the record is beside it, in .json"
        )
    if not page.absolute().parent.is_dir():
        raise ConfigurationError(
            "is in a directory that does not exist", where=f"--report {page}", fix="make it"
        )


def trained_stages(configuration: Configuration, store: Store, leases: ExitStack) -> dict[str, Artifact]:
    """The artifacts of all trainings, verified, and kept until `leases` closes; nothing is built.

    Rejected: to train what is missing: a measurement would begin behind hours of work that nobody asked for.

    Raises:
        ConfigurationError: a stage has not been trained.
        IntegrityError: an artifact is damaged.
    """
    plan = make_plan(configuration, store, _LAST)
    missing = [stage.name for stage in plan if stage.verdict == "MISS"]
    if missing:
        raise ConfigurationError(
            f"{configuration.name} has not been trained here: there is no {', '.join(missing)}",
            where="ups bench frontier",
            fix="train it with `ups run`, with the same --set and --root; `ups plan` says why a stage does not count",
        )
    found = {}
    for stage in plan:
        assert stage.digest is not None  # of a HIT it is known
        leases.enter_context(store.lease(stage.name, stage.digest))
        artifact = store.find(stage.name, stage.digest)
        assert artifact is not None
        store.verify(artifact)
        found[stage.name] = artifact
    return found


def seconds_of(artifact: Artifact, store: Store) -> float:
    """That it took to make, wherever that was, with the trajectories that it consists of."""
    return max(artifact.manifest.seconds, sum(part.manifest.seconds for part in store.parts(artifact)))


def _in_one_process(configuration: Configuration) -> dict[str, Any]:
    """As JSON, for the one process that measures: how many trained is no matter of what an answer takes."""
    values = configuration.model_dump(mode="json")
    values["execution"] |= {"processes": 1, "nodes": 1, "data_parallel": "all_reduce"}
    return values


def measure(
    configuration: Configuration, store: Store, options: Mapping[str, Any], *, on_line: Output
) -> dict[str, Any]:
    """The record of `ups.benchmarks.frontier.measure_frontier`. options: what that takes beside the configuration.

    Raises:
        ConfigurationError, IntegrityError: see `trained_stages`.
        UpsError: of the process that measures.
    """
    place = store.artifacts / ".work"
    with ExitStack() as leases:
        stages = trained_stages(configuration, store, leases)
        return run_tool(
            "ups.benchmarks",
            {
                "subject": "frontier",
                "configuration": _in_one_process(configuration),
                "inputs": {name: str(artifact.path) for name, artifact in stages.items()},
                "stage_seconds": {name: seconds_of(artifact, store) for name, artifact in stages.items()},
                "stages": list(stages),  # in their order, which the keys of a request lose
                "directory": str(place),
                **options,
            },
            place=place,
            threads=options["threads"],
            on_line=on_line,
            environment=compile_cache(store.artifacts) if options["compile"] else None,
        )


def write_page(record: Mapping[str, Any], page: Path, store: Store, *, on_line: Output) -> None:
    """Write the page, and beside it the record as JSON.

    Raises:
        UpsError: the process that draws failed.
    """
    write_json(page.with_suffix(".json"), dict(record))
    drawn = run_tool(
        "ups.tools.draw_frontier",
        {"record": dict(record)},
        place=store.artifacts / ".work",
        threads=1,
        on_line=on_line,
    )
    write_text(page, drawn)
