"""How well candidates obey an equation, in decoded physical units and without the truth.

Every score of a candidate is a number per lead, in units of the root mean square of its first frame, field by field: so it
depends on no grid, and scores can be added. All are 0 for the exact solution, up to what the solver itself misses:

- residual: root mean square of what a frame differs from the one before it, moved on by our own solver;
- conservation: change of the mean since the first frame, of the worst conserved field;
- energy: growth of the root mean square since the frame before, of the worst dissipated field;
- maximum: how far values lie outside the range of the first frame;
- entropy: decrease of a gas's mean entropy since the frame before;
- boundary: root mean square of the values extrapolated by straight lines to where Darcy's scheme has them 0, the centres of the cells
  outside the square (`ups.physics.darcy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.config.physical_scores import PhysicalScore
from ups.evaluation.sizes import sizes
from ups.kinds import module_of
from ups.models.shape import ProblemShape
from ups.problems.ideal_gas import GAMMA, to_conserved, to_primitive

# States larger than that many first frames are none of the equation, and the solver would take for ever.
_LARGEST = 100.0
_TINY = 1e-12


@dataclass(frozen=True)
class Scored:
    """Candidates of n trajectories and how they were scored, in units of their first frames.

    Attributes:
        fields: [n, M, t, Q, C], the first candidate is the uncorrected forecast. Of scored channels.
        moved: [n, M, t, Q, C], what the equation makes of the frame before; of a map fields + residual. Not finite where the
            solver could not take the frame; equal to `fields` where the residual is no score.
        costs: [n, M, t], sum of squared scores by weight; infinite where a candidate is no state of the equation.
        weight: of the squared residual; 0: it is no score.
    """

    fields: Tensor
    moved: Tensor
    costs: Tensor
    weight: float

    @property
    def totals(self) -> Tensor:
        """The score of whole candidates, the root mean square over leads, [n, M]."""
        return self.costs.mean(dim=2).sqrt()

    def joined(self, other: "Scored") -> "Scored":
        """With further candidates of the same trajectories."""
        return Scored(
            torch.cat([self.fields, other.fields], dim=1),
            torch.cat([self.moved, other.moved], dim=1),
            torch.cat([self.costs, other.costs], dim=1),
            self.weight,
        )

    def without(self, rows: Tensor) -> "Scored":
        """The same, where candidates of some trajectories [n] count no more."""
        return Scored(
            self.fields, self.moved, self.costs.masked_fill(rows[:, None, None], torch.inf), self.weight
        )


@dataclass(frozen=True)
class Physics:
    """An equation with its parameters, as candidates of a problem are scored by it.

    Attributes:
        grid: on which candidates are given.
        weights: of the squared scores.
        refinement: see `ups.physics.defects`.
    """

    shape: ProblemShape
    grid: tuple[int, ...]
    parameters: Mapping[str, float]
    time_step: float
    weights: Mapping[PhysicalScore, float]
    refinement: int

    def scale(self, first: Tensor) -> Tensor:
        """What candidates are divided by, [n, 1, 1, 1, C] of the scored channels, from first frames [n, *grid, C].

        Of a map, whose first frame holds what is given, 1.
        """
        whole = first.flatten(1, -2)
        if self.shape.problem.is_map:
            return torch.ones_like(self.shape.scored_fields(whole)[:, None, None, :1])
        size = self.shape.scored_fields(sizes(whole, self.shape.fields))
        return size.clamp_min(_TINY)[:, None, None, None]

    @torch.no_grad()
    def score(self, first: Tensor, candidates: Tensor) -> Scored:
        """Of first frames [n, *grid, C] and candidates [n, M, t, Q, C], all channels, physical."""
        scale, scored = self.scale(first), self.shape.scored_fields
        before = first.flatten(1, -2)[:, None, None].expand(-1, candidates.shape[1], 1, -1, -1)
        whole = torch.cat([before, candidates], dim=2)
        fields = scored(candidates) / scale
        moved, costs = fields, fields.new_zeros(fields.shape[:3])
        for name, weight in self.weights.items():
            if name == "residual":
                moved = scored(self._moved(first, candidates, whole)) / scale
                value = (fields - moved).square().mean(dim=(3, 4)).sqrt()
            else:
                value = getattr(self, f"_{name}")(whole, fields, scale)
            costs = costs + weight * value.square()
        return Scored(
            fields,
            moved,
            costs.nan_to_num(torch.inf, torch.inf, torch.inf),
            self.weights.get("residual", 0.0),
        )

    def _moved(self, first: Tensor, candidates: Tensor, whole: Tensor) -> Tensor:
        module = module_of("ups.physics.defects", self.shape.equation)
        if self.shape.problem.is_map:
            states = candidates.flatten(0, 2).unflatten(1, self.grid).clone()
            for channel, field in enumerate(self.shape.fields):
                if field.given:  # known, and not what a decoder makes of it
                    known = first[..., channel].repeat_interleave(candidates.shape[1], dim=0)
                    states[..., channel] = known
            missed = module.residual(states, parameters=self.parameters)
            return candidates + missed.flatten(1, -2).unflatten(0, candidates.shape[:3])
        states = whole[:, :, :-1].flatten(0, 2).unflatten(1, self.grid)
        converted = self.shape.variables == "conserved"
        primitive = to_primitive(states) if converted else states
        possible = self._possible(states, primitive, first, candidates.shape[1:3].numel())
        moved = torch.full_like(states, torch.nan)
        if bool(possible.any()):
            solved = module.advanced(
                primitive[possible].contiguous(),
                refinement=self.refinement,
                time_step=self.time_step,
                parameters=self.parameters,
                boundary=self.shape.boundary,
            )
            moved[possible] = to_conserved(solved) if converted else solved
        return moved.flatten(1, -2).unflatten(0, candidates.shape[:3])

    def _possible(self, states: Tensor, primitive: Tensor, first: Tensor, repeats: int) -> Tensor:
        """Which states [B, *grid, C] the solver can take, [B]."""
        largest = _LARGEST * first.abs().flatten(1).amax(dim=1).clamp_min(_TINY)
        flat = states.flatten(1)
        possible = flat.isfinite().all(dim=1) & (flat.abs().amax(dim=1) <= largest.repeat_interleave(repeats))
        for channel, field in enumerate(self.shape.problem.fields):
            if field.positive:
                possible &= (primitive[..., channel] > 0).flatten(1).all(dim=1)
        return possible

    def _conservation(self, whole: Tensor, _fields: Tensor, scale: Tensor) -> Tensor:
        change = (whole[:, :, 1:].mean(dim=3) - whole[:, :, :1].mean(dim=3)) / scale[:, :, :, 0]
        return change[..., [c for c, field in enumerate(self.shape.fields) if field.conserved]].abs().amax(-1)

    def _energy(self, whole: Tensor, _fields: Tensor, scale: Tensor) -> Tensor:
        size = whole.square().mean(dim=3).sqrt() / scale[:, :, :, 0]
        growth = size.diff(dim=2)[..., [c for c, field in enumerate(self.shape.fields) if field.dissipated]]
        return growth.clamp_min(0).amax(-1)

    def _maximum(self, whole: Tensor, _fields: Tensor, scale: Tensor) -> Tensor:
        values = (whole / scale)[..., 0]
        above = values[:, :, 1:].amax(dim=3) - values[:, :, :1].amax(dim=3)
        below = values[:, :, :1].amin(dim=3) - values[:, :, 1:].amin(dim=3)
        return torch.maximum(above, below).clamp_min(0)

    def _entropy(self, whole: Tensor, _fields: Tensor, _scale: Tensor) -> Tensor:
        gas = to_primitive(whole) if self.shape.variables == "conserved" else whole
        names = [field.name for field in self.shape.problem.fields]
        density, pressure = gas[..., names.index("density")], gas[..., names.index("pressure")]
        entropy = (density * (pressure / density**GAMMA).log()).mean(dim=3) / density.mean(dim=3)
        return (-entropy.diff(dim=2)).clamp_min(0)

    def _boundary(self, _whole: Tensor, fields: Tensor, _scale: Tensor) -> Tensor:
        grid = fields.unflatten(3, self.grid)
        squares = []
        for axis in range(3, 3 + len(self.grid)):
            points = grid.shape[axis]
            for edge, inside in ((0, 1), (points - 1, points - 2)):
                wall = 2 * grid.select(axis, edge) - grid.select(axis, inside)
                squares.append(wall.square().flatten(3).mean(dim=3))
        return torch.stack(squares).mean(dim=0).sqrt()
