"""A planted truth is found by every selection, and bad candidates never win."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from ups.config.conditioning import SELECTIONS
from ups.evaluation.physical_scores import Physics, Scored
from ups.kinds import kinds_of, module_of
from ups.models.shape import ProblemShape
from ups.physics.advection import solve_advection

STEPS, POINTS, MEMBERS = 12, 64, 6
SHAPE = ProblemShape("advection1d", (POINTS,), (16,), (0,), "periodic")
PHYSICS = Physics(SHAPE, (POINTS,), {"beta": 0.7}, 0.05, {"residual": 1.0}, 1)


def truth() -> Tensor:
    """[2, 1 + t, x, 1]."""
    x = torch.arange(POINTS, dtype=torch.float64) / POINTS
    initial = torch.stack(
        [torch.sin(2 * math.pi * x), torch.cos(2 * math.pi * x) + torch.sin(6 * math.pi * x)]
    )
    return solve_advection(initial, beta=0.7, frame_interval=0.05, frames=STEPS + 1)[..., None]


def errors(seed: int = 0) -> Tensor:
    """[2, M, t, x, 1], smooth in space, other ones at every lead."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(POINTS, dtype=torch.float64) / POINTS
    waves = torch.stack([f(2 * math.pi * k * x) for k in (1, 2, 3) for f in (torch.sin, torch.cos)])
    weights = torch.randn(2, MEMBERS, STEPS, len(waves), generator=generator, dtype=torch.float64)
    return 0.02 * torch.einsum("nmtw,wx->nmtx", weights, waves)[..., None]


def selected(kind: str, candidates: Tensor, option=None, **settings) -> Tensor:
    section = SELECTIONS[kind].model_validate({"kind": kind} | settings)
    module = module_of("ups.evaluation.selections", kind)
    first = truth()[:, 0]
    scored = PHYSICS.score(first, candidates)
    option = module.options(section)[0] if option is None else option
    return module.selected(scored, section, option) * PHYSICS.scale(first)[:, 0]


def error(forecast: Tensor) -> float:
    return (forecast - truth()[:, 1:]).square().mean().sqrt().item()


@pytest.mark.parametrize("kind", kinds_of("ups.evaluation.selections"))
@pytest.mark.parametrize("place", [0, 3, MEMBERS - 1])
def test_a_planted_truth_is_found(kind, place):
    candidates = truth()[:, None, 1:] + errors()
    candidates[:, place] = truth()[:, 1:]
    option = {"least_squares": 1e-9, "softmax": 0.03}.get(kind)
    found = selected(kind, candidates, option)
    assert error(found) < 1e-4 < 0.02 < error(candidates[:, (place + 1) % MEMBERS])


def test_the_truth_in_pieces_is_found_by_segments_alone():
    candidates = truth()[:, None, 1:] + errors()
    for place, start in enumerate(range(0, STEPS, 4)):
        candidates[:, 4 - place, start : start + 4] = truth()[:, 1 + start : 5 + start]
    assert error(selected("segments", candidates, leads=4)) < 1e-12
    assert error(selected("whole", candidates)) > 0.01


def test_the_best_sequence_is_the_best_of_all():
    candidates = (truth()[:, None, 1:] + errors())[:, :3]
    found = selected("segments", candidates, leads=3)

    def cost(forecast: Tensor) -> Tensor:
        return PHYSICS.score(truth()[:, 0], forecast[:, None]).costs.sum(dim=(1, 2))

    every = [
        torch.cat([candidates[:, c, 3 * s : 3 * s + 3] for s, c in enumerate(order)], dim=1)
        for order in itertools.product(range(3), repeat=4)
    ]
    least = torch.stack([cost(each) for each in every]).amin(dim=0)
    torch.testing.assert_close(cost(found), least)


def test_a_combination_that_no_choice_reaches_is_found_by_least_squares():
    """The truth lies halfway between candidates; of an equation that is linear it is found up to the ridge."""
    base, others = errors()[:, :1], errors()[:, 1:]
    candidates = truth()[:, None, 1:] + torch.cat([base, base + others], dim=1)
    candidates[:, -1] = truth()[:, 1:] - base[:, 0]
    assert error(selected("least_squares", candidates, 1e-10)) < 1e-6
    assert error(selected("whole", candidates)) > 0.01


def test_least_squares_is_that_of_one_great_matrix():
    candidates = truth()[:, None, 1:] + errors()
    scored = PHYSICS.score(truth()[:, 0], candidates)
    fields, moved = scored.fields[..., 0], scored.moved[..., 0]
    columns, before = fields[:, 1:] - fields[:, :1], moved[:, 1:] - moved[:, :1]
    ridge, count = 0.5, MEMBERS - 1
    found = selected("least_squares", candidates, ridge) / PHYSICS.scale(truth()[:, 0])[:, 0]
    for row in range(2):
        matrix = torch.zeros(STEPS, POINTS, STEPS, count, dtype=torch.float64)
        for lead in range(STEPS):
            matrix[lead, :, lead] = columns[row, :, lead].T
            if lead:
                matrix[lead, :, lead - 1] = -before[row, :, lead].T
        matrix = matrix.flatten(0, 1).flatten(1)
        here = columns[row].clone()
        here[:, 0] -= before[row, :, 0]
        unit = (here.square() + before[row].square()).sum(dim=-1).mean()
        right = -(fields[row, 0] - moved[row, 0]).flatten()
        regular = ridge * unit * torch.eye(matrix.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(matrix.T @ matrix + regular, matrix.T @ right).view(STEPS, count)
        expected = fields[row, 0] + torch.einsum("tm,mtx->tx", weights, columns[row])
        torch.testing.assert_close(found[row, ..., 0], expected)


@pytest.mark.parametrize("kind", kinds_of("ups.evaluation.selections"))
def test_what_is_not_finite_never_wins(kind):
    candidates = truth()[:, None, 1:] + errors()
    candidates[0, 2, 4:] = math.nan
    candidates[0, 3] = math.inf
    assert selected(kind, candidates).isfinite().all()
    candidates[:, 1:] = math.nan
    torch.testing.assert_close(selected(kind, candidates), candidates[:, 0])
    candidates[1, 0, 3] = math.nan
    result = selected(kind, candidates)  # nothing to choose: the forecast stays as it is
    torch.testing.assert_close(result[0], candidates[0, 0])
    torch.testing.assert_close(result[1, :3], candidates[1, 0, :3])


@pytest.mark.parametrize("kind", kinds_of("ups.evaluation.selections"))
def test_a_trajectory_alone_is_selected_as_beside_others(kind):
    candidates = truth()[:, None, 1:] + errors()
    section = SELECTIONS[kind].model_validate({"kind": kind})
    module = module_of("ups.evaluation.selections", kind)
    first = truth()[:1, 0]
    option = module.options(section)[0]
    alone = (
        module.selected(PHYSICS.score(first, candidates[:1]), section, option) * PHYSICS.scale(first)[:, 0]
    )
    torch.testing.assert_close(alone, selected(kind, candidates)[:1])


def test_scored_candidates_are_joined_and_left_out():
    candidates = truth()[:, None, 1:] + errors()
    all_at_once = PHYSICS.score(truth()[:, 0], candidates)
    parts = [PHYSICS.score(truth()[:, 0], part) for part in candidates.split(2, dim=1)]
    joined: Scored = parts[0].joined(parts[1]).joined(parts[2])
    torch.testing.assert_close(joined.totals, all_at_once.totals)
    left_out = joined.without(torch.tensor([True, False]))
    assert left_out.totals[0].isinf().all()
    torch.testing.assert_close(left_out.totals[1], joined.totals[1])
