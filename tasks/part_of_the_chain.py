"""The chain up to one of its stages."""

from typing import Any

from tasks import chain
from tasks.stage import Settings
from ups.config.schema import STAGES
from ups.pipeline.graph import chain_to
from ups.pipeline.run import Pointer


def run_up_to(stage: str, run: Settings) -> None:
    """Call the task of a stage, after those of all that it needs."""
    built: dict[str, Pointer] = {}
    for name in chain_to(stage):
        task: Any = getattr(chain, name)
        built[name] = task(run, *(built[i] for i in STAGES[name].inputs))
