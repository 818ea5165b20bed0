"""What is built again after an edit: really edited, and really run. What depends on it, and no more."""

import json
import re
import shutil
from pathlib import Path

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

    def built_again(self, *assignments: str) -> set[str]:
        options = [part for each in ("tracking.wandb=disabled", *assignments) for part in ("--set", each)]
        done = ups(
            "run", TINY, "--root", self.root, *options, PYTHONPATH=str(self.sources), PYTHONSAFEPATH="1"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        newest = max((self.root / "runs").iterdir())
        pointers = json.loads((newest / "artifacts.json").read_text())
        return {stage for stage, pointer in pointers.items() if not pointer["hit"]}


@pytest.fixture(scope="module")
def finished(finished_root, tmp_path_factory) -> Edited:
    return Edited(tmp_path_factory.mktemp("edits"), finished_root[0])


@pytest.fixture
def edited(finished) -> Edited:
    finished.restore()
    return finished


NEW = r"\ndef ", "\nEXTRA = 1\n\n\ndef "


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "expected"),
    [
        ("transfer/download.py", *NEW, set()),  # nothing is fetched here
        ("physics/advection.py", *NEW, set()),  # nor is this solved
        ("models/operators/fno.py", r"\nclass ", "\nEXTRA = 1\n\n\nclass ", set()),  # nor this trained
        ("training/optimizers/muon.py", *NEW, set()),
        ("losses/terms/gradient.py", *NEW, set()),
        ("commands/main.py", "show per stage HIT or MISS", "show what is there", set()),
        ("report/catalogue.py", "#0072b2", "#0072b3", set()),  # colours: the report draws its figures itself
        ("training/optimizers/muon.py", "Muon for hidden matrices", "Muon", set()),  # words
        # These make the same bytes as before, and what is behind them stays.
        ("physics/burgers.py", *NEW, {"download"}),
        ("data/pdebench_writer.py", *NEW, {"download"}),
        ("data/cache_writer.py", *NEW, {"cache_encode"}),
        ("models/residual.py", *NEW, {"diffusion", "consistency", "evaluate"}),
        ("losses/relative.py", *NEW, {"autoencoder", "operator", "evaluate"}),
        ("models/consistency.py", r"0\.00054 \*", "0.00064 *", {"diffusion", "consistency", "evaluate"}),
    ],
)
def test_an_edit_of_code(edited, file, pattern, replacement, expected):
    edited.edit(file, pattern, replacement)
    assert edited.built_again() == expected


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("evaluation.members=3", {"evaluate"}),
        ("training.consistency.steps=12", {"consistency", "evaluate"}),
        ("training.operator.log_every=3", set()),
        ("name=other", set()),
        (
            "cache_encode.trajectories_per_chunk=7",
            {"cache_encode", "operator", "diffusion", "consistency", "evaluate"},
        ),
    ],
)
def test_an_edit_of_the_configuration(edited, assignment, expected):
    assert edited.built_again(assignment) == expected
