"""The chain: which stages a stage needs, and what its key is taken of."""

from functools import partial
from pathlib import Path
from typing import Any

from ups.artifacts.input_files import content_of_file
from ups.config import Configuration
from ups.config.schema import STAGES


def stage_settings(name: str, configuration: Configuration, root: Path) -> dict[str, Any]:
    """The part of a configuration that a stage's result is a function of.

    root: where the sums of files are remembered.
    """
    return STAGES[name].settings(configuration, partial(content_of_file, root=root))


def chain_to(stage: str | None) -> list[str]:
    """The stages that a stage needs, itself last, in order of execution; None: all stages."""
    if stage is None:
        return list(STAGES)
    needed = {stage}
    for name in reversed(STAGES):
        if name in needed:
            needed |= set(STAGES[name].inputs)
    return [name for name in STAGES if name in needed]
