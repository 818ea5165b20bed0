"""Draws are a function of seed and step, and ranks share them out."""

import numpy as np
import pytest

from ups.data.sampler import draw_windows, permuted_windows

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


WINDOWS = 7 * 5


def permuted(place: int, *, seed: int = 3, rank: int = 0, world: int = 1, batch_size: int = 12) -> list[int]:
    """Numbers of the windows of one rank's share."""
    shape = SHAPE | {"batch_size": batch_size}
    rows, starts = permuted_windows(
        seed, "operator", "burgers1d", place=place, **shape, rank=rank, world=world
    )
    assert rows.dtype == starts.dtype == np.int64
    assert ((rows >= 0) & (rows < 7) & (starts >= 0) & (starts < 5)).all()
    return (rows * 5 + starts).tolist()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_the_ranks_of_an_epoch_see_every_window_once_and_none_twice(world, epoch):
    """35 windows in batches of 12: epochs begin and end in the middle of a batch."""
    seen: dict[int, list[int]] = {rank: [] for rank in range(world)}
    first, last = epoch * WINDOWS // 12, ((epoch + 1) * WINDOWS - 1) // 12
    for batch in range(first, last + 1):
        for rank in range(world):
            share = permuted(12 * batch, rank=rank, world=world)
            slots = range(12 * batch + rank, 12 * (batch + 1), world)
            inside = [w for w, slot in zip(share, slots, strict=True) if slot // WINDOWS == epoch]
            seen[rank] += inside
    together = sorted(window for windows in seen.values() for window in windows)
    assert together == list(range(WINDOWS))
    assert sum(len(set(windows)) for windows in seen.values()) == WINDOWS, "ranks are disjoint"


@pytest.mark.parametrize("world", [2, 3, 4, 12])
@pytest.mark.parametrize("place", [0, 24, 12 * 1000])
def test_any_number_of_ranks_shares_out_the_same_permuted_batch(world, place):
    whole = permuted(place)
    for rank in range(world):
        assert permuted(place, rank=rank, world=world) == whole[rank::world]


def test_a_batch_may_be_longer_than_an_epoch():
    batch = permuted(35, batch_size=105)
    for start in (0, 35, 70):
        assert sorted(batch[start : start + 35]) == list(range(WINDOWS))
    assert batch == permuted(35, batch_size=35) + permuted(70, batch_size=35) + permuted(105, batch_size=35)


def test_no_epoch_is_like_another_and_each_is_its_seeds():
    epochs = [tuple(permuted(35 * epoch, batch_size=35)) for epoch in range(10)]
    assert len(set(epochs)) == 10
    assert tuple(permuted(35 * 3, batch_size=35)) == epochs[3]
    assert tuple(permuted(0, batch_size=35, seed=4)) != epochs[0]


def test_every_window_comes_at_every_place():
    """Over 700 epochs each of the 35 windows stands first 20 times, give or take the chance."""
    counts = np.zeros(WINDOWS)
    for epoch in range(700):
        counts[permuted(35 * epoch, batch_size=1)[0]] += 1
    assert np.square(counts - 20).sum() / 20 < 34 + 4 * 8.2  # chi-square as above


def test_early_starts_are_drawn_as_often_as_their_exponent_says():
    counts = np.zeros(5)
    for step in range(1000):
        rows, starts = draw_windows(0, step, **SHAPE, start_exponent=1.0)
        assert ((rows >= 0) & (rows < 7)).all()
        np.add.at(counts, starts, 1)
    expected = 1 / np.arange(1, 6)
    expected *= counts.sum() / expected.sum()
    # chi-square with 4 degrees of freedom: mean 4, deviation 2.8
    assert (np.square(counts - expected) / expected).sum() < 4 + 4 * 2.8


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_early_starts(world):
    whole = draw_windows(3, 17, **SHAPE, start_exponent=0.7)
    shares = [draw_windows(3, 17, **SHAPE, start_exponent=0.7, rank=r, world=world) for r in range(world)]
    for part in range(2):
        np.testing.assert_array_equal(np.stack([s[part] for s in shares], axis=1).ravel(), whole[part])
