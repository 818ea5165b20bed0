"""Sobol's sequence against torch's."""

import pytest
import torch

from ups.config import sobol as module
from ups.config.sobol import MOST_DIMENSIONS, sobol


def test_without_its_shift_it_is_torchs(monkeypatch):
    class NoShift:
        def __init__(self, seed: int) -> None:
            pass

        def getrandbits(self, _: int) -> int:
            return 0

    monkeypatch.setattr(module.random, "Random", NoShift)
    engine = torch.quasirandom.SobolEngine(MOST_DIMENSIONS, scramble=False)
    expected = engine.draw(200, dtype=torch.float64)
    assert torch.equal(torch.tensor(list(sobol(MOST_DIMENSIONS, 200, seed=0)), dtype=torch.float64), expected)


@pytest.mark.parametrize("seed", range(3))
def test_every_dimension_is_covered_evenly_whatever_the_seed(seed):
    for values in zip(*sobol(4, 32, seed=seed), strict=True):
        assert sorted(int(32 * value) for value in values) == list(range(32))


def test_another_seed_gives_other_points_and_the_same_seed_the_same():
    first, again, other = (list(sobol(2, 8, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
