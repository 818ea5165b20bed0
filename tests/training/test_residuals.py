"""Residuals are the operator's own errors after its own steps, shared out over ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TOKENS, alone, build, describe, fresh, random_batch
from torch import Tensor

from ups.config import load_configuration
from ups.data.cache import CacheWriter
from ups.models.build import MODEL_FILE, save_model
from ups.models.operator import LatentOperator
from ups.stages.diffusion import residual_data
from ups.training.residuals import ResidualSource

FRAMES, COUNT = 7, 5
SCALARS = random_batch(1).scalars[0]


def operator() -> LatentOperator:
    model = build("operator", scale=0.05)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def latents(count: int = COUNT) -> Tensor:
    return torch.randn(count, FRAMES, TOKENS, 4, generator=torch.Generator().manual_seed(1))


def source(**changes) -> ResidualSource:
    settings = {"rollout_steps": 2, "rollout_fraction": 0.5, "seed": 0, "batch_size": 12}
    return ResidualSource(operator(), latents(), SCALARS, **(settings | changes))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_states_of_a_level_are_so_many_steps_of_the_operator_from_the_truth(level):
    state, target, prediction = source().levels[level]
    truth, model = latents(), operator()
    place = 0
    for trajectory in range(COUNT):
        for start in range(FRAMES - 1 - level):
            expected = truth[trajectory, start][None]
            for _ in range(level):
                expected = model(expected, SCALARS[None])
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(state[place], expected[0], **close)
            torch.testing.assert_close(prediction[place], model(expected, SCALARS[None])[0], **close)
            assert torch.equal(target[place], truth[trajectory, start + level + 1])
            place += 1
    assert place == len(state) == len(target) == len(prediction)


def test_the_deviation_is_that_of_the_residuals_that_are_drawn():
    made = source(batch_size=4000)
    batch = made.batch(0)
    assert batch.latents is not None
    drawn = (batch.latents[:, 1] - batch.predictions).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(made.residual_deviation(), drawn, rtol=0.05, atol=0)
    one_level = source(rollout_steps=0)
    _, target, prediction = one_level.levels[0]
    exact = (target - prediction).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(one_level.residual_deviation(), exact)


def test_a_channel_without_error_is_not_divided_by_zero():
    still = latents()[:, :1].expand(-1, FRAMES, -1, -1)
    persistence = fresh("operator")
    assert isinstance(persistence, LatentOperator)
    made = ResidualSource(
        persistence, still, SCALARS, rollout_steps=1, rollout_fraction=0.5, seed=0, batch_size=4
    )
    assert made.residual_deviation().tolist() == [1.0] * 4


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_shares_of_all_ranks_are_the_batch_of_one(world):
    whole = source().batch(5)
    assert whole.latents is not None
    assert whole.predictions is not None
    for rank in range(world):
        share = source(rank=rank, world=world).batch(5)
        assert torch.equal(share.latents, whole.latents[rank::world])
        assert torch.equal(share.predictions, whole.predictions[rank::world])
        assert share.scalars.shape == (12 // world, 2)


def test_a_batch_is_a_function_of_seed_and_step():
    def draw(seed: int, step: int) -> Tensor:
        predictions = source(seed=seed).batch(step).predictions
        assert predictions is not None
        return predictions

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2))
    assert not torch.equal(draw(0, 1), draw(1, 1))


@pytest.mark.parametrize(("fraction", "steps", "expected"), [(0.5, 2, [0.5, 0.25, 0.25]), (0.3, 0, [1.0])])
def test_levels_are_drawn_as_often_as_they_should(fraction, steps, expected):
    made = source(rollout_fraction=fraction, rollout_steps=steps, batch_size=4000)
    assert made.level_weights() == pytest.approx(expected)
    states = made.batch(0).latents[:, 0].flatten(1)
    for level, share in enumerate(expected):
        candidates = made.levels[level][0].flatten(1)
        members = (states[:, None] == candidates).all(dim=2).any(dim=1)
        assert members.float().mean().item() == pytest.approx(share, abs=0.03)


def test_everything_has_first_and_last_examples_of_every_level():
    made = source()
    batch = made.everything(4)
    assert batch.predictions is not None
    assert len(batch.predictions) == len(batch.scalars) == 3 * 4
    for level in range(3):
        assert torch.equal(batch.predictions[4 * level], made.levels[level][2][0])
        assert torch.equal(batch.predictions[4 * level + 3], made.levels[level][2][-1])
    assert len(source().everything(10_000).scalars) == sum(len(level[0]) for level in made.levels)


def test_only_train_rows_that_the_operator_did_not_fit_are_learnt_from(tmp_path):
    """Every latent says its row: the residuals' targets must be of the held-out rows."""
    configuration = load_configuration(Path(__file__).parents[2] / "configs" / "burgers_tiny.yaml")
    rows, train, validation = 20, list(range(16)), [16, 17]
    numbered = np.broadcast_to(
        np.arange(rows, dtype=np.float32).reshape(rows, 1, 1, 1), (rows, FRAMES, TOKENS, 4)
    )
    writer = CacheWriter(
        tmp_path / "cache",
        tmp_path / "progress.json",
        rows=rows,
        frames=FRAMES,
        latent_shape=(TOKENS, 4),
        grid=(32,),
        names=("u",),
        slab=rows,
        attributes={
            "names": ["u"],
            "scalars": SCALARS.tolist(),
            "splits": {"train": train, "validation": validation, "test": [18, 19]},
        },
    )
    writer.write_slab(0, numbered, np.zeros((rows, FRAMES, 32, 1), dtype=np.float32))
    save_model(tmp_path / "operator" / MODEL_FILE, operator(), describe("operator"))
    inputs = {"cache_encode": tmp_path / "cache", "operator": tmp_path / "operator"}
    data = residual_data(inputs, configuration, alone(), batch_size=8)
    fraction = configuration.training.operator.residual_fraction
    held_out = train[len(train) - round(len(train) * fraction) :]
    for residuals, expected in ((data.source, held_out), (data.validation, validation)):
        for _, target, _ in residuals.levels:
            assert sorted(set(target.flatten().tolist())) == expected
