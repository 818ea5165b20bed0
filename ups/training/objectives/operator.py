"""Prediction over rollouts, in the norm in which forecasts are scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_by_frame
from ups.losses.terms import loss_term
from ups.models.codec import Codec
from ups.models.evolution import Evolution, rollout
from ups.models.reference_frame import ReferenceFrame
from ups.runtime.randomness import numpy_generator
from ups.training.objectives.objective import Loss, Objective


class RolloutLoss(Objective):
    """Relative L2 of every predicted frame's scored fields, mean over fields, frames and batch.

    The error is that of the decoded fields, and its norm the physical field's, mean included, whatever the frame
    of reference; `norm` "frame" takes that of the field in the frame, whose mean may be zero and which decays.
    Further terms are of the same errors, each with its weight. Targets are decoded too, unless `of_fields`: an operator is not asked for what its codec cannot say.

    Windows are cached latents, or, where symmetries are drawn at random, fields that are transformed and encoded here.
    Gradients flow through all counted steps.
    """

    def __init__(
        self,
        codec: Codec,
        problems: Mapping[str, Evolution],
        *,
        rollout_steps: int,
        rollout_start: int = 0,
        pushforward_steps: int = 0,
        state_noise: float = 0.0,
        norm: Literal["physical", "frame"] = "physical",
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        of_fields: bool = False,
        seed: int = 0,
    ) -> None:
        """Arguments as in the configuration's training.operator; terms are its `loss_terms`.

        rollout_start: training step from which all rollout_steps are counted; before, one more at a time.
        of_fields: errors are to the fields themselves, and not to their decoded encoding.
        seed: with the training step, of the number of pushed steps.
        """
        self.codec, self.problems = codec, dict(problems)
        self.rollout_steps, self.rollout_start = rollout_steps, rollout_start
        self.pushforward_steps, self.state_noise, self.norm = pushforward_steps, state_noise, norm
        self.terms, self.of_fields, self.seed = dict(terms or {}), of_fields, seed

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.fields is None:
            raise ValueError("this objective reads fields")
        codec = self.codec.of(batch.problem)
        window = self.window(batch, generator)
        steps, pushed = self.variant(batch)
        state = window.states[:, 0]
        if self.state_noise:
            size = state.square().mean(dim=(1, 2), keepdim=True).sqrt()
            noise = torch.randn(state.shape, generator=generator, device=state.device)
            state = state + self.state_noise * size * noise

        def step(state: Tensor) -> Tensor:
            return model(state, window.scalars, batch.problem, batch.stride)

        with torch.no_grad():
            for _ in range(pushed):
                state = step(state)
        predicted = rollout(step, state, steps)
        counted = slice(pushed + 1, pushed + 1 + steps)
        # Networks may compute in less than float32; errors are taken in float32.
        if window.normalised is None:
            target = codec.normalised_fields(window.states[:, counted])
        else:
            target = window.normalised[:, counted]
        error = codec.normalised_fields(predicted.float()) - target
        error = codec.shape.scored_fields(error * window.unit)
        fields = codec.shape.scored_fields(window.fields[:, counted])
        errors = relative_l2_by_frame(error, fields)
        terms = {"L_forward": errors[:, 0].mean()}
        if steps > 1:
            terms["L_rollout"] = errors[:, 1:].mean()
        total = errors.mean()
        for kind, settings in self.terms.items():
            own = {key: value for key, value in settings.items() if key != "weight"}
            terms[f"L_{kind}"] = loss_term(kind, error, fields, own)
            total = total + settings["weight"] * terms[f"L_{kind}"]
        return Loss(total, terms)

    def variant(self, batch: Batch) -> tuple[int, int]:
        """Steps that are counted, and steps before them, a random number that the host draws."""
        assert batch.fields is not None
        available = batch.fields.shape[1] - 1
        steps = min(self._rollout_steps(batch.step), available)
        most = min(self.pushforward_steps, available - steps)
        pushed = 0
        if most:
            pushed = numpy_generator(self.seed, "pushforward", batch.step).integers(most, endpoint=True)
        return steps, int(pushed)

    def window(self, batch: Batch, generator: torch.Generator) -> "Window":
        """The batch in the models' frame; transformed at random first, where symmetries augment."""
        assert batch.fields is not None
        codec, problem = self.codec.of(batch.problem), self.problems[batch.problem]
        fields, scalars = batch.fields, batch.scalars
        elapsed = problem.time_step * batch.stride * torch.arange(fields.shape[1], device=fields.device)
        if problem.augment:
            transformed = ReferenceFrame.random(codec.shape, fields[:, 0], problem.augment, generator)
            fields = transformed.enter(fields, elapsed)
            scalars, elapsed = transformed.conditioning(scalars), transformed.times(elapsed)
        frame = codec.frame(fields[:, 0], problem.parameters)
        states = batch.latents
        if problem.augment or states is None:
            states = codec.encode(fields, elapsed, frame, batch.known)
        moved = frame.enter(fields, elapsed) if self.of_fields or self.norm == "frame" else fields
        normalised = codec.normalise(moved, batch.known) if self.of_fields else None
        unit = codec.statistics.field_deviation * frame.scale
        if self.norm == "frame":
            scale = frame.scale.view(len(fields), *(1,) * (fields.ndim - 2), -1)
            fields = moved * scale
        return Window(
            fields=fields,
            states=states,
            normalised=normalised,
            scalars=frame.conditioning(scalars),
            unit=unit.view(len(unit), *(1,) * (fields.ndim - 2), -1),
        )

    def _rollout_steps(self, step: int) -> int:
        if step >= self.rollout_start:
            return self.rollout_steps
        return 1 + (self.rollout_steps - 1) * step // self.rollout_start


@dataclass(frozen=True)
class Window:
    """A batch as the objective sees it.

    Attributes:
        fields: [B, T, *grid, C], whose norms errors are relative to.
        states: [B, T, K, d].
        normalised: [B, T, *grid, C] normalised fields in the models' frame, where errors are to the fields; else None.
        scalars: [B, S].
        unit: [B, 1, ..., C], of normalised fields in the units of `fields`.
    """

    fields: Tensor
    states: Tensor
    normalised: Tensor | None
    scalars: Tensor
    unit: Tensor
