"""A chain whose encoder sees points: what the cache holds, and what is scored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY
from downloads import stage_request

from ups.config import load_configuration
from ups.data.cache import open_caches
from ups.data.dataset import load_datasets
from ups.models.build import load_codec
from ups.models.codec import ProblemCodec
from ups.stages import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from ups.training.latents import LatentProblem

STAGES = {
    module.__name__.rpartition(".")[2]: module
    for module in (download, autoencoder, cache_encode, operator, diffusion, consistency, evaluate)
}
LEARNT = ("download", "autoencoder", "cache_encode")
SIZES = {"width": 16, "depth": 1, "heads": 2}
POINTS = {"kind": "points", "points": 90, "radius": 0.2, "neighbours": 8} | SIZES
OVERRIDES: dict[str, Any] = {
    "execution.device": "cpu",
    "model.encoder": POINTS,
    "model.decoder.depth": 0,
    "model.symmetries": {"galilean": "exact", "shift": "average"},
}
DARCY = {
    "data": {
        "source": "generated",
        "equation": "darcy2d",
        "beta": 1.0,
        "trajectories": {"train": 8, "validation": 2, "test": 2},
        "resolution": 8,
        "solver_resolution": 16,
    },
    "model.symmetries": {},
    "model.latent": {"tokens": 4, "dim": 8},
    "model.denoiser.leads_per_position": 1,
    "model.encoder": POINTS | {"points": 600, "radius": 0.25},
}


def run(root: Path, stage: str, **overrides: object) -> Path:
    configuration = load_configuration(TINY, OVERRIDES | overrides)
    STAGES[stage].run(stage_request(root, stage, configuration, f"{stage}-digest-of-64"))
    return root / "artifacts" / stage / "output"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("points")
    for stage in LEARNT:
        run(root, stage)
    return root


def output(root: Path, stage: str) -> Path:
    return root / "artifacts" / stage / "output"


def bound(root: Path) -> ProblemCodec:
    codec, _ = load_codec(output(root, "cache_encode"))
    return codec.of(next(iter(codec.shapes)))


@pytest.mark.parametrize("equation", ["burgers1d", "darcy2d"])
def test_the_cache_holds_what_the_points_tell_and_nothing_of_the_grid(equation, root, tmp_path):
    if equation == "darcy2d":
        root = tmp_path
        for stage in LEARNT:
            run(root, stage, **DARCY)
    dataset = load_datasets(output(root, "download"), ("train", "validation"))[equation]
    cache = open_caches(output(root, "cache_encode"))[equation]
    rows = np.arange(len(dataset.fields))
    fields = torch.from_numpy(cache.fields(rows).astype(np.float32))
    truth = torch.from_numpy(dataset.fields)
    codec = bound(root)
    assert codec.autoencoder.encoder.points == (90 if equation == "burgers1d" else 600)
    with torch.no_grad():
        seen = codec.seen(truth)
    known = torch.from_numpy(dataset.known).view(1, *dataset.known.shape[:1], *(1,) * len(dataset.grid), -1)
    torch.testing.assert_close(fields, seen, atol=1e-3, rtol=1e-3)
    error = ((seen - truth) * known).norm() / truth.norm()
    assert 1e-5 < error < (0.05 if equation == "burgers1d" else 0.5)
    assert not (fields * ~known).any()
    # Its latents are those of these fields: on a line all but the highest wave, which a frame that moves cannot keep.
    elapsed = dataset.time_step * torch.arange(len(dataset.known)).expand(len(rows), -1)
    frame = codec.frame(seen[:, 0], dataset.parameters)
    decoded = codec.decode(torch.from_numpy(cache.latents(rows)).float(), elapsed, frame)
    last = decoded[:, -1].flatten(1) - fields[:, -1].flatten(1)
    assert last.norm() / fields[:, -1].norm() < (1e-2 if equation == "burgers1d" else 0.5)


def test_a_trajectory_is_seen_at_the_same_points_by_whoever_meets_it(root):
    truth = torch.from_numpy(load_datasets(output(root, "download"), ("train",))["burgers1d"].fields[:4])
    codec = bound(root)
    with torch.no_grad():
        together, first = codec.seen(truth), codec.seen(truth[:, :1])
        alone = torch.cat([codec.seen(each[None]) for each in truth])
        others = codec.seen(truth.roll(1, dims=2)).roll(-1, dims=2)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[:, :1], first, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, others, atol=1e-5)  # the same fields at other points


def test_what_generative_models_are_validated_and_calibrated_on_is_what_the_points_tell(root):
    dataset = load_datasets(output(root, "download"), ("validation",))["burgers1d"]
    codec, truth = bound(root), torch.from_numpy(dataset.fields)
    about: dict[str, Any] = {"time_step": dataset.time_step, "parameters": dataset.parameters}
    with torch.no_grad():
        seen, whole = (
            codec.encode_trajectories(fields, None, **about) for fields in (codec.seen(truth), truth)
        )
    read = LatentProblem(codec, dataset, torch.device("cpu")).latents(np.arange(len(truth)))
    assert (read - seen).norm() < 1e-2 * (read - whole).norm()


def test_it_learns_and_says_where_it_began(root):
    summary = json.loads((root / "artifacts" / "autoencoder" / "outcome.json").read_text())["summary"]
    assert 1e-4 < summary["untrained_relative_l2"]["burgers1d"] < 0.05
    assert 1e-4 < summary["validation_relative_l2"] < 0.1


@pytest.mark.slow
def test_the_rest_of_the_chain_goes_on_as_ever(root):
    for stage in list(STAGES)[3:]:
        run(root, stage)
    table = json.loads((output(root, "evaluate") / "metrics.json").read_text())
    errors = {
        record["model"]: record["value"]
        for record in table
        if record["metric"] == "trajectory_relative_l2" and record["field"] is None
    }
    assert np.isfinite(list(errors.values())).all()
    assert errors["operator"] < 2 * errors["persistence"]
