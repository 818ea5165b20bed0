"""Stages that are built again on request, in a whole run."""

import shutil
from types import SimpleNamespace

import pytest
from command_line import TINY

from ups.artifacts.files import read_json
from ups.commands.main import main
from ups.commands.run import run_and_show
from ups.errors import ConfigurationError
from ups.pipeline.rebuild import Rebuild
from ups.pipeline.run import Run

OFF = {"tracking.wandb": "disabled", "execution.device": "cpu"}


def test_the_plan_says_what_was_asked_for_and_a_process_that_goes_on_knows_it(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run = Run.start(TINY, OFF, root=root, rebuild=["diffusion"])
    run.close()
    reasons = {name: (stage.verdict, stage.reason) for name, stage in run.plan.items()}
    assert reasons["operator"][0] == "HIT"
    assert reasons["diffusion"] == ("MISS", "rebuild: asked for")
    assert reasons["consistency"] == ("MISS", "after diffusion")
    assert Run.of(run.settings).rebuild == run.rebuild


@pytest.mark.parametrize("stage", ["download", "evaluate"])
def test_a_stage_that_cannot_be_built_again_is_refused(stage):
    with pytest.raises(ConfigurationError, match=r"rebuild: .*\n  fix: choose among autoencoder, operator$"):
        Rebuild.of([stage], ["download", "autoencoder", "operator"])


def test_a_refused_request_leaves_no_run(tmp_path, capsys):
    options = ["--root", str(tmp_path), "--rebuild", "consistency", "--until", "operator"]
    assert main(["run", str(TINY), *options]) == 2
    assert "'consistency' is none of the stages" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_rebuild_on_several_machines_is_refused(tmp_path):
    """The others would find the stage sealed and leave, and the first machine would wait for them."""
    several = OFF | {"execution.nodes": 2, "execution.data_parallel": "ddp"}
    with pytest.raises(
        ConfigurationError, match="a rebuild runs on one machine, and this configuration on 2"
    ):
        Run.start(TINY, several, root=tmp_path, rebuild=["operator"])
    assert not (tmp_path / "runs").exists()


def test_seeds_ask_at_the_same_time(tmp_path, monkeypatch):
    """Else what one seed has built again, and the next one shares, would be built once more."""
    asked = []

    def start(*arguments, **options):
        asked.append(options["asked"])
        return SimpleNamespace(directory=tmp_path, plan=())

    monkeypatch.setattr("ups.commands.run.Run.start", start)
    monkeypatch.setattr("ups.commands.run.follow", lambda run, until: None)
    run_and_show(TINY, OFF | {"seeds": 3}, root=tmp_path, rebuild=["autoencoder"])
    assert len(asked) == 3
    assert len(set(asked)) == 1


@pytest.mark.slow
def test_a_training_that_is_built_again_comes_out_the_same_and_nothing_behind_it_is(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    options = ["--set", "tracking.wandb=disabled", "--set", "execution.device=cpu"]
    assert main(["run", str(TINY), "--root", str(root), "--rebuild", "diffusion", *options]) == 0
    run = Run.start(TINY, OFF, root=root)
    run.close()
    assert {stage.verdict for stage in run.plan.values()} == {"HIT"}
    newest = max((root / "runs").glob("*/artifacts.json"))
    assert [name for name, row in read_json(newest).items() if not row["hit"]] == ["diffusion"]
