"""What the struck runs conclude from the logs of trainings."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launches import double_work, killed, launches, steps_done_again
from struck_run import StruckRun

STEPS = 1200


def lines(began: int, logged: int, kept: int | None = None) -> str:
    """The log of a launch of two ranks."""
    begin = [f"consistency resumes at step {began} of {STEPS}"] if began else []
    steps = [f"consistency {step}/{STEPS}  loss 0.1" for step in range(began + 1, logged + 1)]
    return "\n".join([*begin, *steps, ""]) + ("" if kept is None else word(kept))


def word(kept: int) -> str:
    """Of each of two ranks."""
    return f"consistency: stopped by a signal at step {kept} of {STEPS}; a checkpoint is written\n" * 2


def write_log(run: Path, text: str) -> Path:
    log = run / "logs" / "consistency.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(text)
    return run


@pytest.mark.parametrize("one_run", [True, False], ids=["retried", "run again"])
@pytest.mark.parametrize(
    ("logged", "again", "double", "silent"),
    [
        ([(0, STEPS)], 0, 0, 0),
        ([(0, 17, 18), (18, STEPS)], 0, 0, 0),
        ([(0, 17, 17), (10, STEPS)], 7, 7, 0),
        ([(0, 17, 18), (10, STEPS)], 8, 8, 0),  # it kept a step that was not logged
        ([(0, 27), (20, STEPS)], 7, 0, 1),
        ([(0, 40), (20, STEPS)], 20, 5, 1),  # more than the killed may lose
        ([(0, 13), (0, 31), (30, STEPS)], 14, 0, 2),  # killed before its first checkpoint
        ([(0, 17, 18), (18, 18), (18, STEPS)], 0, 0, 0),  # the second was told to end before its first step
        ([(0, 17, 18), (18, 18), (10, STEPS)], 8, 8, 0),
        ([(0, 17, 17), (0, STEPS)], 17, 17, 0),
    ],
)
def test_steps_that_were_done_again_are_laid_to_the_launch_that_lost_them(
    tmp_path, logged, again, double, silent, one_run
):
    runs = [
        write_log(tmp_path / str(0 if one_run else number), lines(*each))
        for number, each in enumerate(logged)
    ]
    found = launches(sorted(set(runs)), "consistency")
    assert [launch.began for launch in found] == [began for began, *_ in logged]
    assert (steps_done_again(found), double_work(found, 15), killed(found)) == (again, double, silent)


class Scripted(StruckRun):
    """Each fault is what it leaves in the log."""

    written: dict[str, str]

    def __init__(self, root: Path, **written: str) -> None:
        run = root / "runs" / "1"
        orchestra: Any = SimpleNamespace(
            root=root,
            runs=lambda: [run] if run.exists() else [],
            start_worker=lambda: write_log(run, lines(0, 460)),
            run=lambda asked: {"id": "1"},
            ended=lambda flow_run: "Completed",
            worker_said=str,
        )
        super().__init__(orchestra, None, ("consistency",), {}, 0)  # pyright: ignore[reportArgumentType]
        self.plan = [(fault, "consistency", 457 / STEPS) for fault in written]
        records = root / "artifacts" / ".work" / "consistency" / "1" / "output" / "logs" / "metrics.jsonl"
        records.parent.mkdir(parents=True)
        records.write_text(json.dumps({"step": 460, "steps": STEPS}) + "\n")
        for fault, text in written.items():
            setattr(self, f"_{fault}", lambda text=text: write_log(run, text))


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        # The rank's checkpoint was at 450, and the server is struck before the training goes on.
        ({"rank": "", "server": lines(450, STEPS)}, {}),
        ({"cancel": lines(450, STEPS)}, {"ends without a checkpoint": 1}),
        ({"cancel": word(460) + lines(450, STEPS)}, {"double work": 10}),
    ],
    ids=["a second fault before the training goes on", "no word", "kept, and not found"],
)
def test_a_second_fault_does_not_answer_for_what_the_first_has_cost(tmp_path, written, wrong):
    run = Scripted(tmp_path, **written)
    run.live()
    expected = dict.fromkeys(("double work", "ends without a checkpoint"), 0) | wrong
    assert {what: run.counted[what] for what in expected} == expected
