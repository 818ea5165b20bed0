"""The network behind the generative models of the operator's residual: all leads of a forecast at once.

The residual of a forecast is modelled in units in which all trajectories are alike,

    r = (z - forecast) / deviation(forecast),    deviation^2 = by_steepness S^2 + by_gradient g^2 + by_variance v,

where g is the mean square difference of a token to its neighbours, S^2 the largest such difference anywhere in the
forecast, v the variance of the forecasts that this one is the mean of, and all coefficients are fitted per lead and
channel. Errors of a forecast are mostly errors of place: they sit where the field is steep and grow with its steepness.
Where a forecast is the mean over the elements of a symmetry group, these disagree where the operator is wrong, for
the truth is the same for all of them: in their deviation the logarithm of a Burgers trajectory's residual varies by
0.39, in the steepness by 0.76 (LOG.md). S, g and the root of v are proportional to the field, so where the operator's
errors are, r is the same for any amplitude.

Where the forecasts disagree more than any that the coefficients were fitted on, v grows more slowly beyond that limit,
with a power of 0.7. Held-back residuals do too. Without it, one test trajectory of 64, whose forecasts disagreed a
thousand times more than any before, had an ensemble ten times too wide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import WallEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.forecast import Forecast
from ups.models.operators.convolution import TokenConvolution
from ups.models.operators.grid_network import by_axes, representatives
from ups.models.shape import ProblemShape

_TINY = 1e-12
_ROUNDING = 1e-6
"""What float32 leaves of standardised latents, whose deviation is 1: no residual is known better.

A map's given field is part of its forecast, exact up to rounding. Divided by a deviation of that size, the rounding
made losses of 1e8. Burgers' smallest deviation is twenty times larger (2e-5 in the demo)."""
_FITTING_ITERATIONS = 50
_GROWTH_BEYOND = 0.7
_PARTS = 3  # of the deviation's square


def build(description: Mapping[str, Any], shapes: Mapping[str, ProblemShape]) -> "ResidualNetwork":
    """See `ups.models.build`."""
    dim = description["latent_dim"]
    network = SpaceTimeNetwork(
        shapes, inputs=2 * dim + 1, outputs=dim, extra_scalars=3, **description["network"]
    )
    ways = 2 if description["kind"] == "consistency" else 1
    return ResidualNetwork(network, description["leads"], dim, ways=ways)


class SpaceTimeNetwork(nn.Module):
    """Tokens of all leads [B, T, K, inputs] and scalars [B, S] to [B, T, K, outputs]; zero for a fresh network.

    Several leads make one position; positions are mixed by convolutions along tokens and along leads in turn. What
    lies before the first lead and behind the last is zero, and each position is given its lead.
    """

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        blocks: int,
        dilations: Sequence[int],
        leads_per_position: int,
    ) -> None:
        super().__init__()
        self.shapes, self.leads = dict(shapes), leads_per_position
        self.lift = Float32Linear(self.leads * inputs + 1, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.walls = nn.ModuleDict(
            {module_key(name): WallEmbedding(shape.token_grid, width) for name, shape in shapes.items()}
        )
        self.blocks = nn.ModuleDict(
            {
                key: nn.ModuleList(_Block(len(shape.grid), width, dilations) for _ in range(blocks))
                for key, shape in sorted(representatives(shapes).items())
            }
        )
        self.output = Float32Linear(width, self.leads * outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        shape, leads = self.shapes[problem], tokens.shape[1]
        positions = -(-leads // self.leads)
        # The last position is filled up with the last lead; what comes out there is dropped.
        lacking = positions * self.leads - leads
        filled = torch.cat([tokens, tokens[:, -1:].expand(-1, lacking, -1, -1)], dim=1)
        x = (
            filled.unflatten(1, (positions, self.leads)).transpose(2, 3).flatten(3)
        )  # [B, P, K, leads * inputs]
        place = (torch.arange(positions, device=x.device) + 0.5) / positions
        x = torch.cat([x, place.to(x)[:, None, None].expand(*x.shape[:3], 1)], dim=-1)
        condition = self.condition(scalars, problem)
        x = self.walls[module_key(problem)](self.lift(x) + condition[:, None, None])
        # Space axes first, as in `ups.models.operators.convolution`, then leads: [*tokens, P, B, W].
        x = x.permute(2, 1, 0, 3).unflatten(0, shape.tokens)
        for block in self.blocks[by_axes(shape)].children():
            x = block(x, condition, shape)
        x = self.output(x).flatten(0, len(shape.tokens) - 1).permute(2, 1, 0, 3)
        return x.unflatten(-1, (self.leads, -1)).transpose(2, 3).flatten(1, 2)[:, :leads]


class _Block(nn.Module):
    """x plus convolutions of it and of the condition, along tokens and along leads in turn."""

    def __init__(self, axes: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.axes = axes
        self.condition = nn.Linear(width, width)
        self.along_tokens = nn.ModuleList(TokenConvolution(axes, width, dilation) for dilation in dilations)
        self.along_leads = nn.ModuleList(TokenConvolution(1, width, 1) for _ in dilations)

    def forward(self, x: Tensor, condition: Tensor, shape: ProblemShape) -> Tensor:
        y = x + self.condition(condition)
        for along_tokens, along_leads in zip(self.along_tokens, self.along_leads, strict=True):
            y = F.gelu(along_tokens(y, shape.boundary), approximate="tanh")
            y = along_leads(y.movedim(self.axes, 0), "dirichlet").movedim(0, self.axes)
            y = F.gelu(y, approximate="tanh")
        return x + y


class ResidualNetwork(nn.Module):
    """Raw network F of a diffusion model and of its consistency student, which starts from its weights.

    What surrounds F (skip connections, noise) is mathematics, in `ups.models.edm` and `ups.models.consistency`. What makes a sample of r a
    forecast is here: the deviation, and per lead a gate of the ensemble's mean and a factor of its spread.
    """

    def __init__(
        self, network: SpaceTimeNetwork, leads: Mapping[str, int], latent_dim: int, *, ways: int
    ) -> None:
        """Deviations, gates and factors are 1 until they are set.

        Args:
            network: inputs 2 d + 1, outputs d, three extra scalars.
            leads: numbers of leads by problem.
            ways: in which it is sampled; each has its own gates and factors.
        """
        super().__init__()
        self.network, self.leads = network, dict(leads)
        for problem, count in leads.items():
            key = module_key(problem)
            self.register_buffer(f"deviation_{key}", torch.ones(_PARTS, count, latent_dim))
            self.register_buffer(f"seen_{key}", torch.full((count,), torch.inf))
            self.register_buffer(f"gate_{key}", torch.ones(ways, count))
            self.register_buffer(f"spread_{key}", torch.ones(ways, count))

    def forward(self, y: Tensor, angle: Tensor, context: Tensor, scalars: Tensor, problem: str) -> Tensor:
        """y [B, T, K, d], angle [B], context and scalars as from `conditioning`, to [B, T, K, d]."""
        tokens = torch.cat([y, context], dim=-1)
        return self.network(tokens, torch.cat([scalars, angle[:, None]], dim=-1), problem)

    def conditioning(self, forecast: Forecast, scalars: Tensor, problem: str) -> tuple[Tensor, Tensor]:
        """What the network is conditioned on for B forecasts with scalars [B, S]: [B, T, K, d + 1] and [B, S + 2].

        The forecast in its root mean square, the logarithm of the deviation in the steepness, and both sizes.
        """
        size = forecast.mean.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(_TINY)
        steepness = self.steepness(forecast, problem)
        unit = self.deviation(forecast, problem) / steepness
        context = torch.cat([forecast.mean / size, unit.log().mean(dim=-1, keepdim=True)], dim=-1)
        sizes = torch.cat([size.log(), (steepness / size).log()], dim=-1).flatten(1)
        return context, torch.cat([scalars, sizes], dim=-1)

    def deviation(self, forecast: Forecast, problem: str) -> Tensor:
        """Deviation of the residual of forecasts, [B, T, K, d], in standardised latents; never below their rounding."""
        coefficients = self._statistic("deviation", problem)[:, :, None]
        parts = self._squares(forecast, problem)
        total = sum(coefficient * part for coefficient, part in zip(coefficients, parts, strict=True))
        assert isinstance(total, Tensor)
        return total.sqrt().clamp_min(_ROUNDING)

    def steepness(self, forecast: Forecast, problem: str) -> Tensor:
        """S, the largest root mean square difference of neighbours anywhere in a forecast, [B, 1, 1, 1]."""
        return self._squares(forecast, problem)[0].sqrt().clamp_min(_TINY)

    def fit_deviation(self, residual: Tensor, forecast: Forecast, problem: str) -> None:
        """Coefficients of largest likelihood of normal residuals z - forecast [n, T, K, d].

        By multiplicative updates, which keep them positive and never lower the likelihood (Fevotte and Idier 2011,
        arXiv:1010.1763, algorithm MM for the Itakura-Saito divergence of the squares).
        """
        steepest = self._squares(forecast, problem)[0].clamp_min(_TINY)
        self._statistic("seen", problem).copy_((forecast.variance / steepest).amax(dim=(0, 2, 3)))
        parts = torch.stack(torch.broadcast_tensors(*self._squares(forecast, problem)))
        squares = residual.square()
        coefficients = squares.mean(dim=(0, 2)) / parts.mean(dim=(1, 3)).clamp_min(_TINY) / len(parts)
        for _ in range(_FITTING_ITERATIONS):
            variance = (coefficients[:, None, :, None] * parts).sum(dim=0).clamp_min(_ROUNDING**2)
            above = (parts * squares / variance.square()).sum(dim=(1, 3))
            below = (parts / variance).sum(dim=(1, 3)).clamp_min(_TINY)
            coefficients = coefficients * (above / below).sqrt()
        self._statistic("deviation", problem).copy_(coefficients)

    def corrections(self, samples: Tensor, forecast: Forecast, problem: str, way: int) -> Tensor:
        """What samples of r [n, M, T, K, d], drawn in one of its ways, add to n forecasts.

        Per lead the gate multiplies the mean of an ensemble's corrections, and the factor what differs from it.
        """
        gate, spread = (self._statistic(name, problem)[way, :, None, None] for name in ("gate", "spread"))
        mean = samples.mean(dim=1, keepdim=True)
        calibrated = gate * mean + spread * (samples - mean)
        return self.deviation(forecast, problem)[:, None] * calibrated

    def set_calibration(self, problem: str, way: int, gate: Tensor, spread: Tensor) -> None:
        """Gates and factors of the spread, per lead [T], of one way of sampling."""
        self._statistic("gate", problem)[way] = gate
        self._statistic("spread", problem)[way] = spread

    def start_from(self, teacher: "ResidualNetwork") -> None:
        """Take over weights and deviations."""
        self.network.load_state_dict(teacher.network.state_dict())
        for problem in self.leads:
            for name in ("deviation", "seen"):
                self._statistic(name, problem).copy_(teacher._statistic(name, problem))

    def _statistic(self, name: str, problem: str) -> Tensor:
        return self.get_buffer(f"{name}_{module_key(problem)}")

    def _squares(self, forecast: Forecast, problem: str) -> tuple[Tensor, Tensor, Tensor]:
        """S^2 [B, 1, 1, 1], g^2 and v [B, T, K, 1] of B forecasts; v as it counts, see the module."""
        shape = self.network.shapes[problem]
        grid = forecast.mean.unflatten(2, shape.tokens)
        gradient = torch.zeros_like(grid[..., :1])
        steepest = gradient.new_zeros(len(grid), 1, 1, 1)
        for axis in range(2, 2 + len(shape.tokens)):
            following = grid.roll(-1, dims=axis)
            square = (following - grid).square().mean(dim=-1, keepdim=True)
            if shape.boundary != "periodic":
                square.narrow(axis, grid.shape[axis] - 1, 1).zero_()
            gradient = gradient + (square + square.roll(1, dims=axis)) / 2
            steepest = torch.maximum(steepest, square.flatten(2, -2).amax(dim=(1, 2, 3), keepdim=True))
        seen = self._statistic("seen", problem)[:, None, None] * steepest.clamp_min(_TINY)
        beyond = (forecast.variance / seen.clamp_min(_TINY)).clamp_min(1)
        return steepest, gradient.flatten(2, -2), forecast.variance * beyond ** (_GROWTH_BEYOND - 1)
