"""The tiny chain, each task of it in a process of its own; its arguments and its result get there as JSON text."""

import json
from typing import Any

from prefect import Task
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.utilities.annotations import quote

from flows import chain
from flows.burgers_upt import burgers_upt
from flows.experiment import Experiment

TASKS = {name: value for name, value in vars(chain).items() if isinstance(value, Task)}


def carried(value: Any) -> Any:
    """What arrives, which has to be what was sent."""
    arrived = json.loads(json.dumps(value, allow_nan=False))
    assert arrived == value
    return arrived


class Carried:
    """Called like the task."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, *arguments: Any) -> Any:
        plain = [each.unquote() if isinstance(each, quote) else each for each in arguments]
        return carried(self.task.submit(*map(carried, plain)).result())


if __name__ == "__main__":
    for name, task in TASKS.items():
        setattr(chain, name, Carried(task))
    flow = burgers_upt.with_options(task_runner=ProcessPoolTaskRunner(max_workers=1))
    flow(Experiment(config="burgers_tiny", overrides={"seeds": 2}))
    print("carried:", *sorted(TASKS))
