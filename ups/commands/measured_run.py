"""What measuring commands do first: an ordinary run, up to the stage that they measure."""

import argparse
from collections.abc import Mapping
from typing import Any

from ups.commands.arguments import read_configuration
from ups.commands.tables import print_progress
from ups.config import Configuration
from ups.config.load import parse_overrides
from ups.errors import ConfigurationError
from ups.pipeline.execute import Built
from ups.pipeline.run import Run, run_all


def in_one_process(options: argparse.Namespace) -> Configuration:
    """The configuration, if it runs in the one process of a benchmark."""
    configuration = read_configuration(options)
    if configuration.execution.processes > 1:
        raise ConfigurationError(
            f"a benchmark runs in one process, and this run in {configuration.execution.processes}",
            where="execution.processes",
            fix="--set execution.processes=1",
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
