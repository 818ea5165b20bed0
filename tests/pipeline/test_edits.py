"""What is built again after an edit: really edited, and really run. What depends on it, and no more."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, ups

import ups as package


class Edited:
    """A finished run, and a copy of the library that may be edited."""

    def __init__(self, folder: Path, finished: Path) -> None:
        self.root, self.sources = folder / "root", folder / "sources"
        shutil.copytree(finished, self.root)
        self.restore()

    def restore(self) -> None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.rmtree(self.sources, ignore_errors=True)
        shutil.copytree(Path(package.__file__).parent, self.sources / "ups", ignore=ignored)

    def edit(self, file: str, pattern: str, replacement: str) -> None:
        path = self.sources / "ups" / file
        text, count = re.subn(pattern, replacement, path.read_text(), count=1)
        assert count == 1, f"{pattern} is not in {file}"
        path.write_text(text)

    def run(self, command: str, *assignments: str) -> dict[str, Any]:
        """What artifacts.json of the run says, by stage."""
        options = [part for each in ("tracking.wandb=disabled", *assignments) for part in ("--set", each)]
        done = ups(
            *command.split(), TINY, "--root", self.root, *options,
            PYTHONPATH=str(self.sources), PYTHONSAFEPATH="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        newest = max((self.root / "runs").iterdir())
        return json.loads((newest / "artifacts.json").read_text())

    def built_again(self, *assignments: str) -> set[str]:
        return {stage for stage, pointer in self.run("run", *assignments).items() if not pointer["hit"]}


@pytest.fixture(scope="module")
def finished(finished_root, tmp_path_factory) -> Edited:
    return Edited(tmp_path_factory.mktemp("edits"), finished_root[0])


@pytest.fixture
def edited(finished) -> Edited:
    finished.restore()
    return finished


def long(*rows: tuple[Any, ...]) -> list[Any]:
    return [pytest.param(*row, marks=pytest.mark.long) for row in rows]


NEW = r"\ndef ", "\nEXTRA = 1\n\n\ndef "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "expected"),
    [
        ("model_labels.py", "#0072b2", "#0072b3", set()),  # colours: the report draws its figures itself
        ("physics/burgers.py", *NEW, {"download"}),  # the same bytes as before, and what is behind them stays
        *long(
            ("transfer/download.py", *NEW, set()),  # nothing is fetched here
            ("physics/advection.py", *NEW, set()),  # nor is this solved
            ("models/operators/fno.py", r"\nclass ", "\nEXTRA = 1\n\n\nclass ", set()),  # nor this trained
            ("training/optimizers/muon.py", *NEW, set()),
            ("losses/terms/gradient.py", *NEW, set()),
            ("commands/main.py", "show per stage HIT or MISS", "show what is there", set()),
            ("training/optimizers/muon.py", "Muon for hidden matrices", "Muon", set()),  # words
            # These too make the same bytes.
            ("data/pdebench_writer.py", *NEW, {"download"}),
            ("data/cache_writer.py", *NEW, {"cache_encode"}),
            ("models/residual.py", *NEW, {"diffusion", "consistency", "evaluate"}),
            ("losses/relative.py", *NEW, {"autoencoder", "operator", "evaluate"}),
            ("models/consistency.py", r"0\.00054 \*", "0.00064 *", {"diffusion", "consistency", "evaluate"}),
        ),
    ],
)
def test_an_edit_of_code(edited, file, pattern, replacement, expected):
    edited.edit(file, pattern, replacement)
    assert edited.built_again() == expected


TRAININGS = {"autoencoder", "operator", "diffusion", "consistency"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("data.trajectories.test=5", {"download", "evaluate"}),
        *long(
            ("evaluation.members=3", {"evaluate"}),
            ("data.trajectories.validation=5", {"download", "cache_encode", "evaluate"} | TRAININGS),
            ("training.consistency.steps=12", {"consistency", "evaluate"}),
            ("training.operator.log_every=3", set()),
            ("name=other", set()),
            (
                "cache_encode.trajectories_per_chunk=7",
                {"cache_encode", "operator", "diffusion", "consistency", "evaluate"},
            ),
        ),
    ],
)
def test_an_edit_of_the_configuration(edited, assignment, expected):
    assert edited.built_again(assignment) == expected


@pytest.mark.slow
@pytest.mark.long
def test_another_number_of_threads_trains_again(edited):
    """Whether the cache is built again too is the machine's business: two threads may add in the same order."""
    assert edited.built_again("execution.threads=2") - {"cache_encode"} == TRAININGS | {"evaluate"}


MIX = """data={source: mix, problems: {
    burgers: {source: generated, equation: burgers1d, nu: 0.01, trajectories: {train: 16, validation: 4, test: 4},
              resolution: 32, solver_resolution: 32, frames: 9, frame_interval: 0.05},
    waves: {source: generated, equation: advection1d, beta: %s, trajectories: {train: 8, validation: 2, test: 2},
            resolution: 32, solver_resolution: 32, frames: 9, frame_interval: 0.05}}}"""


@pytest.mark.slow
def test_problems_of_a_mix_share_their_trajectories_with_runs_of_their_own(edited):
    more = "data.problems.burgers.trajectories.test=5"
    alone, slow, fast, longer = (
        set(edited.run("stage download", *assignments)["download"]["parts"])
        for assignments in ((), (MIX % 0.1,), (MIX % 0.2,), (MIX % 0.2, more))
    )
    assert len(alone) == 3, "splits"
    assert len(slow) == len(fast) == 6
    assert slow & fast == alone, "of Burgers"
    assert len(longer - fast) == 1
