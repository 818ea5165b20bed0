"""Stages with nothing to train: the linear codec as it starts, and the best linear map as an operator."""

import json
import logging
from pathlib import Path

import pytest
import torch
from command_line import CONFIGS, TINY, ups
from downloads import stage_request

from ups.artifacts.files import read_records
from ups.config import load_configuration
from ups.data.cache import open_caches
from ups.errors import ConfigurationError
from ups.models.autoencoder import Autoencoder
from ups.models.build import MODEL_FILE, load_codec, load_model
from ups.models.operators import LatentOperator
from ups.stages import autoencoder, cache_encode, download, operator

OVERRIDES = {
    "execution.device": "cpu",
    "execution.threads": 1,
    "model.encoder.depth": 0,
    "model.decoder.depth": 0,
    "training.autoencoder.steps": 0,
    "model.operator": {"kind": "linear"},
    "model.symmetries": {"galilean": "exact", "scaling": "exact"},
}
STAGES = {
    "download": download,
    "autoencoder": autoencoder,
    "cache_encode": cache_encode,
    "operator": operator,
}


def run(root: Path, stage: str, **overrides: object) -> Path:
    configuration = load_configuration(TINY, OVERRIDES | overrides)
    STAGES[stage].run(stage_request(root, stage, configuration))
    return root / "artifacts" / stage


def summary(work: Path) -> dict:
    return json.loads((work / "outcome.json").read_text())["summary"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("untrained")
    for stage in ("download", "autoencoder", "cache_encode"):
        run(root, stage)
    return root


def test_the_codec_is_the_linear_one_and_the_stage_says_so(root, tmp_path, caplog):
    reported = summary(root / "artifacts" / "autoencoder")
    assert reported["validation_relative_l2"] < 1e-6
    assert reported["untrained_relative_l2"]["burgers1d"] < 1e-6
    (record,) = read_records(root / "artifacts" / "autoencoder" / "output" / "logs" / "metrics.jsonl")
    assert (record["step"], record["steps"]) == (0, 0)
    assert not (root / "artifacts" / "autoencoder" / "checkpoints").exists()
    model, _ = load_model(root / "artifacts" / "autoencoder" / "output" / MODEL_FILE)
    assert isinstance(model, Autoencoder)
    assert torch.equal(model.encoder.get_parameter("linear.problem_burgers1d.weight"), torch.eye(4))
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "download").symlink_to(root / "artifacts" / "download")
    with caplog.at_level(logging.INFO):
        reported = summary(run(tmp_path, "autoencoder", **{"model.latent.dim": 2}))
    assert "autoencoder: nothing to train" in caplog.text
    assert "burgers1d: linear codec, 2 of 4 numbers per patch, leaves" in caplog.text
    assert 1e-4 < reported["untrained_relative_l2"]["burgers1d"] < 0.5


def test_a_floor_stops_the_stage(root, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "download").symlink_to(root / "artifacts" / "download")
    overrides = {"model.latent.dim": 1, "model.latent.floor": 1e-6}
    with pytest.raises(ConfigurationError, match=r"(?s)model\.latent: 1 channels on 8 tokens.*lossless: 4"):
        run(tmp_path, "autoencoder", **overrides)
    assert not (tmp_path / "artifacts" / "autoencoder" / "output" / MODEL_FILE).exists()


@pytest.mark.slow
def test_the_command_line_says_it_with_exit_code_2(tmp_path):
    """How much a codec leaves out is known when the data are: no rule of the configuration can tell it before."""
    settings = OVERRIDES | {"model.latent.dim": 1, "model.latent.floor": 1e-6, "tracking.wandb": "disabled"}
    assignments = [
        word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    done = ups("stage", "autoencoder", TINY, "--root", tmp_path, *assignments)
    assert done.returncode == 2, done.stderr
    assert (
        "the configuration burgers_tiny: model.latent: 1 channels on 8 tokens per axis leave" in done.stderr
    )
    assert "fix: raise dim (lossless: 4) or tokens, or the floor" in done.stderr


def test_latents_are_centred_by_their_frame_and_scaled_alike(root):
    """Where amplitudes are exact: no mean is taken off, and one deviation serves all channels."""
    codec, _ = load_codec(root / "artifacts" / "cache_encode" / "output")
    statistics = codec.of("burgers1d").statistics
    assert not statistics.latent_mean.any()
    assert not statistics.field_mean.any()
    assert len(statistics.latent_deviation.unique()) == 1
    cache = open_caches(root / "artifacts" / "cache_encode" / "output")["burgers1d"]
    latents = torch.from_numpy(cache.latents(cache.rows("train"))).float()
    assert latents.square().mean().item() == pytest.approx(1, rel=1e-2)


def test_the_best_linear_map_is_an_operator_without_training(root, caplog):
    with caplog.at_level(logging.INFO):
        work = run(root, "operator")
    assert "operator: nothing to train" in caplog.text
    reported = summary(work)
    assert reported["parameters"] == 0
    model, _ = load_model(work / "output" / MODEL_FILE)
    assert isinstance(model, LatentOperator)
    assert model.get_buffer("linear.problem_burgers1d.fitted").abs().max() > 1e-2
    # Better than leaving the first frame as it is: on the trajectories that it was fitted on, one step.
    cache = open_caches(root / "artifacts" / "cache_encode" / "output")["burgers1d"]
    latents = torch.from_numpy(cache.latents(cache.rows("train"))).float()
    before, after = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
    with torch.no_grad():
        left = (model.linear_step(before, "burgers1d") - after).norm()
    assert left < 0.9 * (before - after).norm()
    assert 0 < reported["validation_relative_l2"] < 1


def test_a_trained_path_starts_at_the_fitted_map_and_is_saved_beside_it(root, tmp_path):
    (tmp_path / "artifacts").mkdir()
    for name in ("download", "cache_encode"):
        (tmp_path / "artifacts" / name).symlink_to(root / "artifacts" / name)
    frozen = run(root, "operator") / "output" / MODEL_FILE
    work = run(tmp_path, "operator", **{"model.operator": {"kind": "linear", "linear_path": "trained"}})
    model, _ = load_model(work / "output" / MODEL_FILE)
    first, _ = load_model(frozen)
    key = "linear.problem_burgers1d"
    assert torch.equal(model.get_buffer(f"{key}.fitted"), first.get_buffer(f"{key}.fitted"))
    assert 0 < model.get_parameter(f"{key}.change").abs().max() < 0.1


@pytest.mark.slow
def test_the_equations_own_diffusion_is_trained_around_and_comes_back_from_its_file(root, tmp_path):
    """Untrained it decays as the heat equation, and is better than persistence."""
    (tmp_path / "artifacts").mkdir()
    for name in ("download", "cache_encode"):
        (tmp_path / "artifacts" / name).symlink_to(root / "artifacts" / name)
    chosen = {
        "kind": "convolution",
        "width": 16,
        "dilations": [1],
        "linear_path": "exact",
        "conserve": "fluxes",
    }
    work = run(tmp_path, "operator", **{"model.operator": chosen})
    model, description = load_model(work / "output" / MODEL_FILE)
    assert isinstance(model, LatentOperator)
    assert description["linear_path"] == {"burgers1d": "exact"}
    cache = open_caches(root / "artifacts" / "cache_encode" / "output")["burgers1d"]
    latents = torch.from_numpy(cache.latents(cache.rows("train"))).float()
    before, after = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
    scalars = torch.tensor(cache.scalars).expand(len(before), -1)
    with torch.no_grad():
        decayed = before + model.with_diffusion(before, torch.zeros_like(before), scalars, "burgers1d")
    assert 0 < (before - decayed).norm() < (before - after).norm()
    assert (decayed - after).norm() < 0.99 * (before - after).norm()


def test_problems_whose_linear_map_is_alone_are_not_trained_on(tmp_path):
    path = {"burgers": "alone", "advection": "alone", "darcy": "none", "compressible": "alone"}
    overrides = {
        "model.operator.linear_path": path,
        "training.operator.steps": 6,
        "training.operator.log_every": 1,
    }
    configuration = load_configuration(CONFIGS / "mix_tiny.yaml", {"execution.device": "cpu"} | overrides)
    for stage in STAGES:
        STAGES[stage].run(stage_request(tmp_path, stage, configuration))
    records = read_records(tmp_path / "artifacts" / "operator" / "output" / "logs" / "metrics.jsonl")
    named = {name for record in records for name in record}
    assert "L_forward" in named
    assert "L_rollout" not in named, "only the map has a single step"
    assert {f"validation_relative_l2/{problem}" for problem in path} <= named
    model, _ = load_model(tmp_path / "artifacts" / "operator" / "output" / MODEL_FILE)
    assert isinstance(model, LatentOperator)
    cache = open_caches(tmp_path / "artifacts" / "cache_encode" / "output")["burgers"]
    latents = torch.from_numpy(cache.latents(cache.rows("validation"))).float()[:, 0]
    with torch.no_grad():
        step = model(latents, torch.tensor(cache.scalars).expand(len(latents), -1), "burgers")
    torch.testing.assert_close(step, model.linear_step(latents, "burgers"))
