"""What is fitted on held-back trajectories is the best there is, and dressing resamples what happened."""

from dataclasses import replace

import pytest
import torch
from small_models import DIM, SHAPES, codec, first_frames
from tiny import NETWORK, build
from torch import Tensor

from ups.evaluation.correction import calibration, resampled
from ups.models.codec import Codec, ProblemCodec
from ups.models.forecast import Forecast
from ups.models.token_grid import TokenGrid

PARAMETERS = {"wave": {"nu": 0.5}, "map": {"beta": 0.5}}
LEADS = {"wave": 4, "map": 1}
TIMES = {"time_step": 0.05}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """Forecasts whose correction is known: the truth is forecast + wanted * correction + noise, decoded."""

    def __init__(
        self,
        problem: str,
        wanted: Tensor,
        *,
        noise: float,
        members: int = 8,
        count: int = 24,
        own: ProblemCodec | None = None,
    ) -> None:
        self.bound = own or codec().of(problem)
        leads, tokens = LEADS[problem], SHAPES[problem].token_grid.token_count
        self.problem, self.forecasts = problem, Forecast.single(normal(count, leads, tokens, DIM))
        mean = 0.3 * normal(count, leads, tokens, DIM, seed=1)
        self.ensemble = self.forecasts.mean[:, None] + mean[:, None]
        self.ensemble = self.ensemble + 0.2 * normal(count, members, leads, tokens, DIM, seed=2)
        correction = self.ensemble.mean(dim=1) - self.forecasts.mean
        latents = self.forecasts.mean + wanted[:, None, None] * correction
        latents = latents + noise * normal(count, leads, tokens, DIM, seed=3)
        first = first_frames(problem, count)
        self.elapsed = 0.05 * torch.arange(1, leads + 1).expand(count, -1)
        self.frame = self.bound.frame(self.bound.seen(first[:, None])[:, 0], PARAMETERS[problem])
        future = self.decoded(latents).unflatten(2, SHAPES[problem].grid)
        self.truth = torch.cat([first[:, None], future], dim=1)

    def decoded(self, latents: Tensor) -> Tensor:
        return self.bound.decode(latents, self.elapsed, self.frame)

    def calibrated(self):
        return calibration(
            lambda rows: self.ensemble[rows],
            self.forecasts,
            self.bound,
            self.truth,
            parameters=PARAMETERS[self.problem],
            **TIMES,
        )

    def errors(self, gate: Tensor) -> Tensor:
        """Mean square of what the gated mean leaves, per lead, relative to the square norm of the trajectory."""
        scored = list(SHAPES[self.problem].scored)
        target = self.truth[:, 1:].flatten(2, -2)[..., scored]
        norm = target.square().sum(dim=(1, 2), keepdim=True)
        given = self.forecasts.mean
        mean = given + gate[:, None, None] * (self.ensemble.mean(dim=1) - given)
        return ((self.decoded(mean)[..., scored] - target).square() / norm).sum(dim=(0, 2, 3))


def test_a_gate_that_fits_is_found():
    """The codec is linear as far as its first frame goes, so decoded errors are those of the latents, decoded."""
    wanted = torch.tensor([0.2, 0.5, 0.8, 0.0])
    case = Case("wave", wanted, noise=0.0)
    torch.testing.assert_close(case.calibrated().gate, wanted, rtol=0.02, atol=0.02)


def test_an_encoder_of_points_forecasts_in_the_frames_that_it_sees():
    """And is scored on the truth."""
    points = {"kind": "points", "points": 64, "radius": 0.25, "neighbours": 16, "smoothness": 2}
    shape = replace(SHAPES["wave"], exact=("galilean",))
    own = build("codec", seed=4, shapes={"wave": shape}, encoder=points | NETWORK)
    assert isinstance(own, Codec)
    wanted = torch.tensor([0.2, 0.5, 0.8, 0.0])
    case = Case("wave", wanted, noise=0.0, own=own.of("wave"))
    torch.testing.assert_close(case.calibrated().gate, wanted, rtol=0.02, atol=0.02)
    # Nothing is left, so that nothing is to be spread.
    assert case.calibrated().spread[:3].max() < 0.1


@pytest.mark.parametrize("problem", ["wave", "map"])
def test_no_other_gate_is_better_and_none_is_worse_than_the_operator(problem):
    leads = LEADS[problem]
    case = Case(problem, torch.full((leads,), 0.4), noise=0.3)
    gate = case.calibrated().gate
    best = case.errors(gate)
    assert (best <= case.errors(torch.zeros(leads)) * (1 + 1e-5)).all()
    for change in (-0.1, 0.1):
        assert (case.errors((gate + change).clamp(0, 1)) >= best * (1 - 1e-3)).all()


@pytest.mark.parametrize(("wanted", "expected"), [(-0.5, 0.0), (1.7, 1.0)])
def test_a_gate_stays_between_nothing_and_all(wanted, expected):
    assert (Case("wave", torch.full((4,), wanted), noise=0.01).calibrated().gate == expected).all()


def test_the_factor_makes_the_spread_the_error_of_the_gated_mean():
    case = Case("wave", torch.full((4,), 0.5), noise=0.6)
    found = case.calibrated()
    scored = list(SHAPES["wave"].scored)
    target = case.truth[:, 1:].flatten(2, -2)[..., scored]
    norm = target.square().sum(dim=(1, 2), keepdim=True)
    members = torch.stack([case.decoded(member) for member in case.ensemble.unbind(dim=1)], dim=1)[
        ..., scored
    ]
    variance = (members.var(dim=1) / norm).sum(dim=(0, 2, 3)) * found.spread.square()
    torch.testing.assert_close(9 / 8 * variance, case.errors(found.gate), rtol=1e-2, atol=0)


def test_dressing_draws_whole_trajectories_and_shifts_them_where_nothing_forbids():
    residuals = torch.arange(3 * 2 * 8.0).view(3, 2, 8, 1)
    line = TokenGrid((32,), (8,), (True,))
    drawn = resampled(residuals, 200, 4, line, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 4, 2, 8, 1)
    shifted = {
        tuple(residuals[i].roll(n, dims=1).flatten().tolist()): (i, n) for i in range(3) for n in range(8)
    }
    found = [shifted[tuple(each.flatten().tolist())] for each in drawn.flatten(0, 1)]
    counts = torch.tensor([[found.count((i, n)) for n in range(8)] for i in range(3)])
    # 800 draws over 24 places: 33 each, give or take 4.5 deviations.
    assert counts.min() > 8
    assert counts.max() < 60


def test_dressing_does_not_shift_between_walls():
    residuals = normal(3, 1, 16, 2)
    drawn = resampled(residuals, 5, 4, SHAPES["map"].token_grid, torch.Generator().manual_seed(0))
    for each in drawn.flatten(0, 1):
        assert any(torch.equal(each, one) for one in residuals)


def test_dressing_has_the_moments_of_the_pool():
    residuals = normal(64, 3, 8, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 0.5
    drawn = resampled(residuals, 400, 16, TokenGrid((32,), (8,), (True,)), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(dim=(0, 1, 3)), residuals.mean(dim=(0, 2)), rtol=0.05, atol=0.05)
    torch.testing.assert_close(drawn.std(dim=(0, 1, 3)), residuals.std(dim=(0, 2)), rtol=0.05, atol=0)
