"""Latent time stepping: one step, a rollout with gradients through it, and the decoded field."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_per_field
from ups.models.codec import Codec
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres
from ups.objectives.objective import Loss
from ups.objectives.queries import drawn_points


class LatentForecast:
    """L_forward + L_rollout + field_weight * L_field over a window of rollout_steps + 1 frames.

    L_forward: mean squared error of the first predicted frame in standardised latents.
    L_rollout: the same, mean over the further frames, predicted from predictions.
    L_field: relative L2 of the decoded predictions of the scored fields, in normalised units, mean over fields
    and batch.

    Gradients flow through all steps. Rejected: the pushforward trick (no gradient through earlier steps),
    cheaper per step but blind to how a step's error grows.
    """

    def __init__(
        self,
        codec: Codec,
        shapes: Mapping[str, ProblemShape],
        *,
        field_weight: float,
        query_points: int | None,
        device: torch.device,
    ) -> None:
        """query_points: how many points of the grid are decoded per step (None: all)."""
        self.codec = codec
        self.scored = {name: list(shape.scored) for name, shape in shapes.items()}
        self.coordinates = {name: cell_centres(shape.grid).to(device) for name, shape in shapes.items()}
        self.field_weight = field_weight
        self.query_points = query_points

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.latents is None or batch.fields is None:
            raise ValueError("this objective reads cached latents and fields")
        states = rollout(model, batch.latents[:, 0], batch.scalars, batch.problem, batch.latents.shape[1] - 1)
        targets = batch.latents[:, 1:]
        terms = {"L_forward": F.mse_loss(states[:, 0], targets[:, 0])}
        total = terms["L_forward"]
        if states.shape[1] > 1:
            terms["L_rollout"] = F.mse_loss(states[:, 1:], targets[:, 1:])
            total = total + terms["L_rollout"]
        if self.field_weight > 0:
            scored, coordinates = self.scored[batch.problem], self.coordinates[batch.problem]
            exact = batch.fields[:, 1:].flatten(2, -2)
            chosen = drawn_points(len(coordinates), self.query_points, generator)
            if chosen is not None:
                coordinates, exact = coordinates[chosen], exact[:, :, chosen]
            decoded = self.codec.of(batch.problem).decode_normalised(states.flatten(0, 1), coordinates)
            decoded = decoded.unflatten(0, states.shape[:2]).float()
            errors = relative_l2_per_field(decoded[..., scored], exact[..., scored])
            terms["L_field"] = errors.mean()
            total = total + self.field_weight * terms["L_field"]
        return Loss(total, terms)


def rollout(operator: nn.Module, state: Tensor, scalars: Tensor, problem: str, steps: int) -> Tensor:
    """Apply an operator again and again: [B, K, d] to [B, steps, K, d], the given state not included."""
    states = []
    for _ in range(steps):
        state = operator(state, scalars, problem)
        states.append(state)
    return torch.stack(states, dim=1)
