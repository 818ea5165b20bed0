"""Finish hooks: a command that is run when a run has ended, whatever ended it.

A rented machine that nobody stops costs money, most of all after what nobody expected: a flow that crashed, a process
that was killed. So the commands are run by a process of its own (`ups.pipeline.run_hooks`), which waits for our end.

Rejected: Prefect's state hooks (on_completion, on_crashed, ...). They run in the process whose end they are about, or in a
worker that sees to some states only, and `ups run` has none. Rejected: one hook for every seed; what stops the machine
after the first would lose the rest.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL

from ups.config import Configuration
from ups.errors import is_interruption
from ups.pipeline.watcher import Watcher

log = logging.getLogger(__name__)

HOOKS_LOG = "hooks.log"
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"

_of_this_process: list[Watcher] = []
"""Whose pipes stay open until the kernel closes them."""


@contextmanager
def finish_hooks(
    configuration: Configuration, root: Path, *, after_the_process: bool = False
) -> Iterator[Callable[[Path], None]]:
    """The hooks of a configuration, around all runs (seeds) that it asks for; they are run once.

    Yields a function that is to be called with the directory of each run that has begun: the last one is what hooks are about,
    and its logs/hooks.log theirs. Of a run that could not begin, it is ROOT/hooks.log. What the block adds to the environment, they
    have too.

    Args:
        after_the_process: hooks are run when this process has ended, and not at the end of the block: a flow reports
            its state to the server first, and a hook may stop the machine.
    """
    hooks = configuration.hooks
    commands = {
        FINISHED: hooks.finished,
        FAILED: hooks.failed,
        INTERRUPTED: hooks.interrupted,
        "always": hooks.always,
    }
    if not any(commands.values()):
        yield lambda _: None
        return
    request = {
        "commands": commands,
        "seconds": hooks.timeout_seconds,
        "name": configuration.name,
        "log": str(root / HOOKS_LOG),
    }
    before = dict(os.environ)

    def tell(word: str) -> None:
        # With the credentials that a flow has taken from its server since.
        taken = {name: value for name, value in os.environ.items() if before.get(name) != value}
        watcher.tell(f"environment {json.dumps(taken)}")
        watcher.tell(word)

    # Not our output: whoever reads that waits until the last one who has it ends.
    watcher = Watcher("ups.pipeline.run_hooks", [json.dumps(request)], DEVNULL)
    state = FAILED
    try:
        yield lambda directory: tell(f"run {directory}")
        state = FINISHED
    except BaseException as error:
        if is_interruption(error):
            state = INTERRUPTED
        raise
    finally:
        tell(f"state {state}")
        if after_the_process:
            _of_this_process.append(watcher)
        elif code := watcher.end():
            log.warning(
                "warning: %s of the finish hooks failed; logs/%s of the run says how. The run's result stays as it is",
                code,
                HOOKS_LOG,
            )
