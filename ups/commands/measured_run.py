"""What commands do that measure a configuration: an ordinary run up to a stage, and then a process that measures."""

import argparse
from collections.abc import Mapping
from typing import Any

from ups.commands.arguments import read_configuration
from ups.commands.tables import print_progress
from ups.config import Configuration
from ups.config.load import parse_overrides
from ups.errors import ConfigurationError
from ups.pipeline.compile_cache import compile_cache
from ups.pipeline.execute import Built
from ups.pipeline.run import Run, find_root, run_all
from ups.pipeline.tool_process import run_tool


def in_one_process(options: argparse.Namespace) -> Configuration:
    """The configuration, if it runs in the one process of a benchmark."""
    configuration = read_configuration(options)
    if configuration.execution.ranks > 1:
        raise ConfigurationError(
            f"a benchmark runs in one process, and this run in {configuration.execution.ranks}",
            where="execution.processes",
            fix="--set execution.processes=1 --set execution.nodes=1",
        )
    return configuration


def run_until(options: argparse.Namespace, until: str, changes: Mapping[str, Any]) -> Run:
    """An ordinary run of the configuration, up to a stage."""
    overrides = {**parse_overrides(options.assignments), **changes}
    run = Run.start(options.config, overrides, root=options.root, until=until)

    def on_stage(name: str, built: Built | None) -> None:
        if built is not None:
            print_progress(f"{name} {'cached' if built.hit else 'done'}  {built.artifact.digest[:12]}")

    run_all(run, on_line=print_progress, on_stage=on_stage, until=until)
    return run


def measured(options: argparse.Namespace, configuration: Configuration, request: Mapping[str, Any]) -> Any:
    """The records of a process of its own.

    request: {"subject": ..., and what that needs}, see `ups.benchmarks`.
    """
    artifacts = find_root(options.root) / "artifacts"
    place = artifacts / ".work"
    return run_tool(
        "ups.benchmarks",
        {"configuration": configuration.model_dump(mode="json"), "directory": str(place), **request},
        place=place,
        threads=configuration.execution.threads,
        on_line=print_progress,
        environment=compile_cache(artifacts),  # a benchmark also compiles what the configuration does not
    )
