"""The examples of docs/how-to/add-*.md, added to a copy of the library and used as a user would."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import TINY, ups

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = CHECKOUT / "docs" / "how-to"
CHAPTER = (
    (CHECKOUT / "CONTRIBUTING.md").read_text().partition("\n## Adding things\n")[2].partition("\n## ")[0]
)
THINGS = {
    "an operator": "add-an-operator",
    "an optimiser": "add-an-optimiser",
    "a schedule of the learning rate": "add-a-schedule",
    "a term of the operator's loss": "add-a-loss-term",
    "a metric": "add-a-metric",
    "an equation": "add-an-equation",
    "a stage": "add-a-stage",
}
"""What CONTRIBUTING.md's table names, and the page that it leads to."""
BLOCK = re.compile(r"^`([\w/]+\.py)`:\n\n```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A new file, or lines for one that is there: a difference whose first line is in the file, and stays."""

    file: str
    kind: str
    text: str

    def add(self, sources: Path) -> None:
        path = sources / self.file
        if self.kind == "python":
            assert not path.exists(), f"{self.file} is there already"
            path.write_text(self.text)
            return
        first, *added = self.text.splitlines(keepends=True)
        assert all(line.startswith("+") for line in added)
        before, place = path.read_text(), first[1:]
        assert before.count(place) == 1, f"{self.file} does not have {place!r} once"
        path.write_text(before.replace(place, place + "".join(line[1:] for line in added)))


def example(page: str) -> str:
    return (PAGES / f"{page}.md").read_text()


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(example(page))]


def assignment(page: str) -> str:
    """`section.key: value`, as the example says that it is used, for `--set`."""
    (key, value) = re.findall(r"^Used by `([\w.]+): (.*)`\.$", example(page), re.MULTILINE)[0]
    return f"{key}={value}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The library, tasks and flows with all examples added."""
    folder = tmp_path_factory.mktemp("sources")
    for room in ("ups", "tasks", "flows"):
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for page in THINGS.values():
        for block in blocks(page):
            block.add(folder)
    return folder


def extended(sources: Path, *arguments: str | Path) -> str:
    done = ups(*arguments, PYTHONPATH=str(sources), PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_table_counts_the_files_of_the_examples():
    row = r"^\| \[(an? [^]]+)\]\(docs/how-to/([\w-]+)\.md\) \| (\d+) \(\d+\)(?:, and (\d+) for Prefect)? \|"
    rows = re.findall(row, CHAPTER, re.MULTILINE)
    assert {thing: page for thing, page, *_ in rows} == THINGS
    told = {thing: (int(own), int(more or 0)) for thing, _, own, more in rows}
    counted = {}
    for thing, page in THINGS.items():
        files = {block.file for block in blocks(page)}
        own = sum(file.startswith("ups/") for file in files)
        counted[thing] = own, len(files) - own
    assert told == counted == dict.fromkeys(THINGS, (2, 0)) | {"a stage": (2, 2)}


def test_no_block_of_a_page_is_left_out():
    for path in PAGES.glob("add-*.md"):
        text = path.read_text()
        assert text.count("\n```python\n") + text.count("\n```diff\n") == len(blocks(path.stem)) > 0


@pytest.mark.slow
@pytest.mark.long
def test_what_was_added_and_is_not_used_builds_nothing_again_but_the_evaluation(sources, finished_root):
    """A metric is one more number for every model; the new stage was never built."""
    plan = extended(sources, "plan", TINY, "--root", finished_root[0])
    verdicts = dict(re.findall(r"^(\w+) +(HIT|MISS)", plan, re.MULTILINE))
    assert {stage for stage, verdict in verdicts.items() if verdict == "MISS"} == {"evaluate", "extrema"}
    assert len(verdicts) == 8


@pytest.mark.slow
def test_a_run_with_all_of_them(sources, finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    chosen = [assignment(page) for page in list(THINGS.values())[:4]]
    chosen.append(assignment("add-a-stage"))
    chosen.append("model.operator.conserve=false")  # the codec of this configuration is not linear
    chosen += [f"training.{stage}.steps=2" for stage in ("operator", "diffusion", "consistency")]
    chosen += [f"training.{stage}.warmup_steps=0" for stage in ("operator", "diffusion", "consistency")]
    chosen += ["training.operator.log_every=1", "tracking.wandb=disabled"]
    options = [part for each in chosen for part in ("--set", each)]
    output = extended(sources, "run", TINY, "--root", root, *options)
    directory = max((root / "runs").iterdir())
    pointers = json.loads((directory / "artifacts.json").read_text())
    kept = {stage for stage, pointer in pointers.items() if pointer["hit"]}
    assert kept == {"download", "autoencoder", "cache_encode"}
    # The loss has its term, and the learning rate stays level before it falls.
    log = next((root / "artifacts" / "operator").glob("*/logs/metrics.jsonl"))
    newest = max(log.parents[2].glob("*/logs/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    records = [json.loads(line) for line in newest.read_text().splitlines()]
    trained = [record for record in records if "loss" in record]
    assert len(trained) == 2
    for record in trained:
        expected = (record["L_forward"] + record["L_rollout"]) / 2 + 0.05 * record["L_largest"]
        assert record["loss"] == pytest.approx(expected, rel=1e-5)
    assert [record["learning_rate"] for record in trained] == pytest.approx([1e-3, 1e-5])
    # The network is the small one, trained by the optimiser that was added.
    manifest = json.loads((newest.parents[1] / "manifest.json").read_text())
    modules = manifest["derivation"]["code"]["modules"]
    assert {
        "ups.models.operators.perceptron",
        "ups.training.optimizers.nadam",
        "ups.training.schedules.plateau",
        "ups.losses.terms.largest",
    } <= modules.keys()
    assert "ups.models.operators.transformer" not in modules
    # The metric is a number of every model, a column on the terminal and a row of the report.
    numbers = [r for r in json.loads((directory / "metrics.json").read_text()) if r["metric"] == "peak_error"]
    assert {"persistence", "operator", "diffusion"} <= {record["model"] for record in numbers}
    assert all(record["value"] > 0 and record["unit"] == "length/time" for record in numbers)
    assert "peak error" in " ".join(output.split())
    assert "Difference of the largest values of each frame" in (directory / "report.html").read_text()
    # The stage was run by its own settings.
    (extrema,) = (root / "artifacts" / "extrema").iterdir()
    found = json.loads((extrema / "extrema.json").read_text())
    assert found["burgers1d"]["u"][0] < 0 < found["burgers1d"]["u"][1]
    assert json.loads((extrema / "manifest.json").read_text())["derivation"]["settings"] == {
        "trajectories": 4
    }


@pytest.mark.slow
@pytest.mark.long
def test_a_flow_runs_the_stage_that_was_added(sources, finished_root, tmp_path):
    """With a temporary Prefect server; what the chain had is cached."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows", TINY, "--set", "tracking.wandb=disabled"],
        cwd=sources,
        env=environment
        | {"UPS_ROOT": str(root), "PREFECT_HOME": str(tmp_path / "prefect"), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "Task run 'extrema' - Finished in state Completed" in said
    assert "Task run 'operator' - Finished in state Cached" in said


@pytest.mark.slow
@pytest.mark.long
def test_an_equation_is_generated_checked_and_trained_on(sources, tmp_path):
    file = tmp_path / "heat.hdf5"
    sizes = ["kappa=0.01", "resolution=64", "frames=9"]
    options = [part for each in sizes for part in ("--set", each)]
    extended(sources, "data", "generate", "heat1d", file, "--rows", "4", *options)
    (record,) = json.loads(extended(sources, "data", "check", file, "--json", "--root", tmp_path))
    assert (record["problem"], record["parameters"]) == ("heat1d", {"kappa": 0.01})
    assert record["solver_distance"]["solver"] == "exact"
    assert record["solver_distance"]["largest"] < 1e-5
    assert record["conservation"]["u"]["largest"] < 1e-5
    data = (
        "data={source: generated, equation: heat1d, kappa: 0.01, resolution: 32, solver_resolution: 32, frames: 9, "
        "frame_interval: 0.05, trajectories: {train: 16, validation: 4, test: 4}}"
    )
    short = [f"training.{stage}.steps=2" for stage in ("autoencoder", "operator")]
    short += [f"training.{stage}.warmup_steps=0" for stage in ("autoencoder", "operator")]
    symmetries = "model.symmetries={reflection: augment, scaling: augment}"
    options = [part for each in (data, symmetries, *short) for part in ("--set", each)]
    extended(sources, "stage", "operator", TINY, "--root", tmp_path / "root", *options)
    (manifest,) = (tmp_path / "root" / "artifacts" / "operator").glob("*/manifest.json")
    modules = json.loads(manifest.read_text())["derivation"]["code"]["modules"]
    equations = {name for name in modules if name.startswith("ups.problems.equations.")}
    assert equations == {"ups.problems.equations.heat1d"}
