"""Sums and means over ranks are those of the numbers, and the same on every rank to the bit."""

import subprocess
import sys

import pytest
import torch
from ranked import run_ranks
from tiny import single_rank

from ups.runtime.ranks import Ranks

NUMBERS = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def sums_and_means(ranks: Ranks) -> tuple[torch.Tensor, list[torch.Tensor]]:
    mine = NUMBERS[ranks.rank :: ranks.world]
    means = [mine.sum(dim=0).float(), mine[0, :2].float().view(2, 1)]
    ranks.average_(means)
    return ranks.sum(torch.stack([mine.sum(dim=0), torch.full((3,), float(len(mine)))])), means


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_is_told_the_same(world):
    results = run_ranks(sums_and_means, world)
    for total, means in results:
        assert total.dtype == torch.float64
        torch.testing.assert_close(total[0], NUMBERS.sum(dim=0))
        assert total[1].tolist() == [6.0] * 3
        torch.testing.assert_close(means[0], NUMBERS.sum(dim=0).float() / world)
        torch.testing.assert_close(means[1], NUMBERS[:world, :2].mean(dim=0).float().view(2, 1))
        assert torch.equal(total, results[0][0])
        assert all(torch.equal(mean, first) for mean, first in zip(means, results[0][1], strict=True))


def test_a_rank_alone_is_told_what_it_says():
    values = torch.tensor([1.0, 2.0])
    assert single_rank().sum(values) is values
    single_rank().average_([values])
    assert values.tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_a_stage_is_deterministic_and_the_compiler_too_once_it_is_told():
    """And is not imported before: it takes a second of every stage."""
    program = """
import sys
import torch
import ups.stages.evaluate
from ups.runtime.ranks import join_ranks, make_compiler_deterministic
with join_ranks("cpu", 1):
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert "torch._inductor" not in sys.modules
    make_compiler_deterministic()
    assert sys.modules["torch._inductor"].config.deterministic
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
