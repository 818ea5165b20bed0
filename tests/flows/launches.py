"""What the logs of a training say of its launches: how far each one got, and whether it was told to end.

One that is told to end says at which step it kept a checkpoint, and one that is killed says nothing: so the steps that the next
launch does again are laid to the end of this one. Rejected: laying them to the fault that was struck last. Where a second
fault comes before the training goes on after a first, only then it is seen what the first has cost.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass
class Launch:
    """By steps: of the checkpoint that it began from, or 0; its last logged one; the one that it kept when it was told to end."""

    began: int
    logged: int
    kept: int | None = None

    @property
    def was_killed(self) -> bool:
        """In the middle of its steps; of one that another launch came after."""
        return self.kept is None and self.logged > self.began

    def done_again_by(self, later: "Launch") -> int:
        """Its steps that the next launch did again, as far as they were logged."""
        return max(0, (self.logged if self.kept is None else self.kept) - later.began)


def launches(runs: Iterable[Path], stage: str) -> list[Launch]:
    """Those that began to train, in the order of runs and logs."""
    found: list[Launch] = []
    for run in runs:
        log = run / "logs" / f"{stage}.log"
        text = log.read_text() if log.exists() else ""
        for resumed, kept, step in re.findall(
            rf"^{stage}(?: resumes at step (\d+) of|: stopped by a signal at step (\d+) of| (\d+)/\d+  loss)",
            text,
            re.MULTILINE,
        ):
            if resumed:
                found.append(Launch(int(resumed), int(resumed)))
            elif kept:  # every rank says so
                found[-1].kept = int(kept)
            elif not found or found[-1].kept is not None or int(step) <= found[-1].logged:
                found.append(Launch(0, int(step)))
            else:
                found[-1].logged = int(step)
    return found


def steps_done_again(trained: Iterable[Launch]) -> int:
    """In all launches of a training."""
    return sum(earlier.done_again_by(later) for earlier, later in pairwise(trained))


def double_work(trained: Iterable[Launch], allowed_to_killed: int) -> int:
    """Steps that were done again though they should not: none of a launch that was told to end, so many of a killed one."""
    return sum(
        max(0, earlier.done_again_by(later) - (allowed_to_killed if earlier.was_killed else 0))
        for earlier, later in pairwise(trained)
    )


def killed(trained: list[Launch]) -> int:
    """How many of them ended without a checkpoint, but for the last, which ended as it should."""
    return sum(launch.was_killed for launch in trained[:-1])
