"""Draws are a function of seed and step, and ranks share them out."""

import numpy as np
import pytest

from ups.data.sampler import draw_windows

SHAPE = {"batch_size": 12, "trajectories": 7, "starts": 5}


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_the_shares_of_all_ranks_are_the_batch_of_one(world):
    whole = draw_windows(3, 17, **SHAPE)
    shares = [draw_windows(3, 17, **SHAPE, rank=rank, world=world) for rank in range(world)]
    for part in range(2):
        assert all(len(share[part]) == 12 // world for share in shares)
        interleaved = np.stack([share[part] for share in shares], axis=1).ravel()
        np.testing.assert_array_equal(interleaved, whole[part])


def test_a_draw_is_a_function_of_seed_and_step():
    def draw(seed: int, step: int) -> list[int]:
        rows, starts = draw_windows(seed, step, **SHAPE)
        return (rows * 5 + starts).tolist()

    assert draw(3, 17) == draw(3, 17)
    assert len({tuple(draw(seed, step)) for seed in (3, 4) for step in (17, 18)}) == 4


def test_all_windows_are_drawn_equally_often():
    counts = np.zeros((7, 5), dtype=int)
    for step in range(700):
        rows, starts = draw_windows(0, step, **SHAPE)
        np.add.at(counts, (rows, starts), 1)
    expected = 700 * 12 / 35
    assert counts.sum() == 700 * 12
    # chi-square with 34 degrees of freedom: mean 34, deviation 8.2
    assert np.square(counts - expected).sum() / expected < 34 + 4 * 8.2
