"""The members of a sweep on this machine, one after the other, without Prefect."""

from collections.abc import Callable
from typing import Any

from ups.errors import GateError, NotFiniteError, StageError, UpsError
from ups.pipeline.run import Run, run_all
from ups.pipeline.sweeps.sweep import DIVERGED, ENDED, FAILED, STARTED, Leg, RunLegs, SweepRun


class _Halt(Exception):
    """Ends a stage from outside: it writes a checkpoint, see `ups.pipeline.supervise.launch.launch`."""


def one_after_the_other(on_line: Callable[[str], None]) -> RunLegs:
    """on_line: gets what stages print, and a line per member."""

    def run_legs(sweep: SweepRun, legs: list[Leg]) -> None:
        for number, leg in enumerate(legs, 1):
            on_line(f"member {number} of {len(legs)}: {leg.member.name}")
            event, more = _run_leg(sweep, leg, on_line)
            on_line(": ".join([leg.member.name, event, *([more["message"]] if "message" in more else [])]))

    return run_legs


def _run_leg(sweep: SweepRun, leg: Leg, on_line: Callable[[str], None]) -> tuple[str, dict[str, Any]]:
    """Returns the event that the journal has of its end.

    Raises:
        UpsError: what would end the other members too, or goes well the next time.
    """
    member, ended = leg.member, (ENDED, dict[str, Any]())

    def on_progress(stage: str, _record: dict[str, Any]) -> None:
        nonlocal ended
        if stage == sweep.sweep.rank_by and (verdict := sweep.verdict(leg)) is not None:
            event, step, message = verdict
            ended = event, {"step": step, "message": message}
            raise _Halt

    sweep.note(STARTED, member)
    try:
        run = Run.start(member.config, member.overrides, root=sweep.store.root, until=leg.until)
        run_all(run, on_line=on_line, on_stage=lambda *_: None, on_progress=on_progress, until=leg.until)
    except _Halt:
        pass
    except GateError as error:
        ended = ENDED, {"message": str(error)}
    except UpsError as error:
        if error.retryable or not isinstance(error, StageError):
            raise
        # Its loss is not finite the next time either; other failures may have been the machine's.
        ended = (
            DIVERGED if isinstance(error, NotFiniteError) else FAILED,
            {"message": str(error).splitlines()[0]},
        )
    sweep.note(ended[0], member, **ended[1])
    return ended
