"""A codec that was trained with its operator goes with it: all later stages read that one, and encode anew."""

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import TINY
from downloads import stage_request

from ups.artifacts.files import read_records
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.errors import ConfigurationError, IntegrityError
from ups.evaluation.surrogate import load_surrogate
from ups.models.build import CODEC_FILE, MODEL_FILE, codec_of_operator, load_codec, load_model
from ups.models.operators import LatentOperator
from ups.runtime.ranks import join_ranks
from ups.stages import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from ups.training.latents import open_problems

OVERRIDES = {
    "execution.device": "cpu",
    "execution.threads": 1,
    "execution.cuda_graphs": False,
    "model.latent.dim": 2,
    "model.encoder.depth": 0,
    "model.decoder.depth": 0,
    "model.operator.conserve": False,
    "training.autoencoder.steps": 0,
    "training.operator.joint": {"begin": 0.5},
}
MODULES = {
    module.__name__.rpartition(".")[2]: module for module in (download, autoencoder, cache_encode, operator)
}
MODULES |= {"diffusion": diffusion, "consistency": consistency, "evaluate": evaluate}
CONFIGURATION = load_configuration(TINY, OVERRIDES)


def paths(root: Path, stage: str) -> dict[str, Path]:
    return {name: root / "artifacts" / name / "output" for name in STAGES[stage].inputs}


def run(root: Path, stage: str) -> Path:
    MODULES[stage].run(stage_request(root, stage, CONFIGURATION, f"{stage}-digest-of-64"))
    return root / "artifacts" / stage / "output"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("joint")
    for stage in MODULES:
        run(root, stage)
    return root


def test_the_operator_brings_its_codec_which_has_another_name(root):
    before, described = load_codec(root / "artifacts" / "cache_encode" / "output")
    after, moved = codec_of_operator(
        {name: root / "artifacts" / name / "output" for name in ("operator", "cache_encode")}
    )
    assert re.fullmatch(f"{described['codec']}-[0-9a-f]{{12}}", moved["codec"]), "named by its weights"
    for name, weight in after.named_parameters():
        assert not torch.equal(weight, before.get_parameter(name)), name
    for name, value in after.named_buffers():
        assert torch.equal(value, before.get_buffer(name)), "statistics stay"
    model, description = load_model(root / "artifacts" / "operator" / "output" / MODEL_FILE)
    assert isinstance(model, LatentOperator), "and no more"
    assert description["codec"] == moved["codec"]


def test_a_training_says_whether_its_steps_were_graphs(root):
    said = {
        stage: json.loads((root / "artifacts" / stage / "outcome.json").read_text())["summary"].get(
            "cuda_graphs"
        )
        for stage in ("operator", "diffusion", "consistency", "autoencoder")
    }
    assert said == {"operator": False, "diffusion": False, "consistency": False, "autoencoder": None}, (
        "nothing to train"
    )


def test_the_codec_moves_in_the_second_half(root):
    terms = [
        set(record)
        for record in read_records(root / "artifacts" / "operator" / "output" / "logs" / "metrics.jsonl")
    ]
    steps = [
        record["step"]
        for record in read_records(root / "artifacts" / "operator" / "output" / "logs" / "metrics.jsonl")
    ]
    joint = {step: "L_inv_enc" in names for step, names in zip(steps, terms, strict=True) if "loss" in names}
    assert joint[1] is False
    assert joint[20] is True


def test_later_stages_read_latents_of_this_codec_and_evaluation_uses_it(root):
    inputs = paths(root, "diffusion")
    codec, _ = codec_of_operator(inputs)
    with join_ranks("cpu", 1) as ranks:
        problem = open_problems(inputs, CONFIGURATION, codec, ranks, encode_anew=True)["burgers1d"]
    rows = problem.rows("validation")
    anew = problem.latents(rows)
    fields = torch.from_numpy(problem.rows_fields(rows))
    before, _ = load_codec(inputs["cache_encode"])
    of_the_cache, of_the_operator = (
        one.of("burgers1d").encode_trajectories(
            fields, None, time_step=problem.source.time_step, parameters=problem.source.parameters
        )
        for one in (before, codec)
    )
    torch.testing.assert_close(anew, of_the_operator)
    # Both from the same fields in float32: the codecs differ, and not the rounding of what was cached.
    assert not torch.allclose(anew, of_the_cache, rtol=0, atol=1e-3)
    surrogate = load_surrogate(paths(root, "evaluate"), CONFIGURATION)
    assert surrogate.description["codec"] == load_codec(inputs["operator"])[1]["codec"]
    table = json.loads((root / "artifacts" / "evaluate" / "output" / "metrics.json").read_text())
    assert {record["model"] for record in table} >= {"operator", "diffusion", "consistency_2"}


def test_models_of_the_other_codec_are_refused(root, tmp_path):
    """An operator without its codec, as somebody might copy it."""
    mixed = paths(root, "evaluate")
    (tmp_path / "artifacts" / "operator").mkdir(parents=True)
    (tmp_path / "artifacts" / "operator" / MODEL_FILE).symlink_to(mixed["operator"] / MODEL_FILE)
    assert not (tmp_path / "artifacts" / "operator" / CODEC_FILE).exists()
    with pytest.raises(IntegrityError, match="was trained on latents of another encoder"):
        load_surrogate(mixed | {"operator": tmp_path / "artifacts" / "operator"}, CONFIGURATION)


def test_conserved_means_need_a_codec_that_stays():
    with pytest.raises(
        ConfigurationError,
        match=r"model.operator.conserve: needs a codec that stays as it is.*conserve: false",
    ):
        load_configuration(TINY, OVERRIDES | {"model.operator.conserve": True})
