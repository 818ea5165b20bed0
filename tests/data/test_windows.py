"""Windows are consecutive frames of one trajectory, never out of range, and the same for every world size."""

import numpy as np
import pytest
import torch

from ups.data.windows import WindowSource
from ups.errors import DataError

TRAJECTORIES, FRAMES = 6, 9


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """Every value says its trajectory and its frame: 100 n + t."""
    number = 100 * np.arange(TRAJECTORIES)[:, None] + np.arange(FRAMES)
    return np.broadcast_to(number.reshape(TRAJECTORIES, FRAMES, *[1] * len(shape)), (*number.shape, *shape))


def source(**changes) -> WindowSource:
    settings = {
        "seed": 1,
        "batch_size": 8,
        "window": 3,
        "scalars": [-3.0, -4.6],
        "device": torch.device("cpu"),
        "fields": numbered((4, 1)).astype(np.float32),
        "latents": numbered((2, 3)).astype(np.float16),
    }
    return WindowSource(**(settings | changes))


def test_a_window_is_consecutive_frames_of_one_trajectory_in_fields_and_latents_alike():
    seen = set()
    for step in range(50):
        batch = source().batch(step)
        assert batch.fields is not None
        assert batch.latents is not None
        assert batch.fields.shape == (8, 3, 4, 1)
        assert batch.latents.shape == (8, 3, 2, 3)
        assert batch.latents.dtype == torch.float32
        numbers = batch.fields[:, :, 0, 0]
        assert torch.equal(numbers, numbers[:, :1] + torch.arange(3))
        assert torch.equal(batch.fields, numbers[:, :, None, None].expand_as(batch.fields))
        assert torch.equal(batch.latents, numbers[:, :, None, None].expand_as(batch.latents))
        seen |= set(numbers[:, 0].int().tolist())
    assert seen == {100 * n + t for n in range(TRAJECTORIES) for t in range(FRAMES - 2)}, (
        "first and last included"
    )


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_take_the_slots_of_their_number(world):
    whole = source().batch(5).fields
    assert whole is not None
    for rank in range(world):
        share = source(rank=rank, world=world).batch(5)
        assert share.fields is not None
        assert torch.equal(share.fields, whole[rank::world])
        assert share.scalars.tolist() == [[-3.0, pytest.approx(-4.6)]] * (8 // world)


def test_a_window_of_all_frames_fits_and_a_longer_one_is_an_error_with_its_fix():
    batch = source(window=FRAMES).batch(0)
    assert batch.fields is not None
    assert batch.fields.shape[1] == FRAMES
    with pytest.raises(DataError, match=r"(?s)9 frames.*window takes 10.*fix: lower rollout_steps"):
        source(window=FRAMES + 1)


def test_a_source_of_nothing_is_refused():
    with pytest.raises(ValueError, match="fields or latents"):
        source(fields=None, latents=None)
