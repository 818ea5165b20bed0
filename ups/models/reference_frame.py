"""Frames of reference: the symmetries of an equation, used exactly or as augmentation.

A trajectory is moved to the frame in which its first state is at rest, centred and upright, and its forecast is
moved back. A model in that frame is equivariant whatever its weights, and sees less that differs.

    v(x, t) = Q [u(x + offset + velocity t, t) - level] / scale

Q reverses or exchanges axes (fields declared odd change sign). Which of these are used is `ProblemShape.exact`;
augmentation draws them at random instead, and a mean over all elements of a finite group is exact as well.
Periodic shifts are those of the trigonometric polynomial through the points: exact for whole points and for all that
the grid resolves (of an even number of points the highest wave number cannot be told from its mirror image, and
keeps only the part that both have in common).

The amplitude of a field that scales with itself is not here: the operator takes it out at every step, for it
decays (`ups.models.operators.operator`).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ups.models.shape import ProblemShape
from ups.problems import AMPLITUDE, TIME_STEP


@dataclass(frozen=True)
class ReferenceFrame:
    """Frames of n trajectories. None says that no trajectory is moved so: the host knows it without asking the device.

    Attributes:
        level, scale: [n, C], physical units.
        velocity, offset: [n], in domain lengths per unit time and domain lengths; of the one space axis.
        reversed: [n, axes] bool.
        exchanged: [n] bool, whether the two axes change places (after they were reversed).
    """

    shape: ProblemShape
    level: Tensor
    scale: Tensor
    velocity: Tensor | None = None
    offset: Tensor | None = None
    reversed: Tensor | None = None
    exchanged: Tensor | None = None

    @classmethod
    def at_rest(cls, shape: ProblemShape, first: Tensor) -> "ReferenceFrame":
        """The frame in which nothing changes, of first states [n, *grid, C]."""
        level = first.new_zeros(first.shape[0], first.shape[-1])
        return cls(shape, level, torch.ones_like(level))

    @classmethod
    def of(
        cls, shape: ProblemShape, first: Tensor, parameters: dict[str, float] | None = None
    ) -> "ReferenceFrame":
        """The canonical frames of first states [n, *grid, C], physical units, by the shape's exact symmetries.

        parameters: of the equation, where a field is proportional to one.
        """
        frame = cls.at_rest(shape, first)
        declared, exact = shape.problem.symmetries, shape.exact
        values = {name: first[..., channel].flatten(1) for channel, name in enumerate(shape.names)}
        level, scale = frame.level, frame.scale
        velocity = offset = reversed_ = exchanged = None
        for name in (declared.galilean,) if "galilean" in exact else ():
            assert name is not None
            mean = values[name].mean(dim=1)
            level[:, shape.names.index(name)] = mean
            velocity = mean / shape.length
        for name in declared.offset if "offset" in exact else ():
            level[:, shape.names.index(name)] = values[name].mean(dim=1)
        if "reflection" in exact:
            assert declared.odd is not None
            odd = next(name for name in shape.names if name in declared.odd)
            # Upright: the mean third power, which changes sign with the field, is positive.
            centred = values[odd] - values[odd].mean(dim=1, keepdim=True)
            reversed_ = (centred.pow(3).mean(dim=1) < 0)[:, None]
        if "shift" in exact:
            # The phase of the longest wave becomes zero, of the upright field: the reversed one's is another.
            leading = shape.names[shape.scored[0]]
            sign = -1.0 if declared.odd is not None and leading in declared.odd else 1.0
            upright = values[leading]
            if reversed_ is not None:
                upright = torch.where(reversed_[:, :1], sign * upright.flip(1), upright)
            phase = torch.fft.rfft(upright, dim=1)[:, 1].angle()
            back = -phase if reversed_ is None else torch.where(reversed_[:, 0], phase, -phase)
            offset = back / (2 * torch.pi)
        if "square" in exact:
            given = first[..., 0]
            moments = []
            for axis, points in enumerate(shape.grid):
                place = torch.linspace(-0.5, 0.5, points, device=first.device)
                moments.append((given.movedim(1 + axis, -1) * place).flatten(1).mean(dim=1))
            moment = torch.stack(moments, dim=1)
            reversed_, exchanged = moment < 0, moment[:, 0].abs() < moment[:, 1].abs()
        by = declared.scaled_by
        if by is not None and "scaling" in exact:
            if by in values:
                unit = values[by].mean(dim=1)
            elif parameters is None:
                raise ValueError(f"the frame of {shape.equation} needs the parameters of the equation")
            else:
                unit = parameters[by]
            for name in declared.scaling:
                scale[:, shape.names.index(name)] = unit
        return cls(shape, level, scale, velocity, offset, reversed_, exchanged)

    @classmethod
    def random(
        cls, shape: ProblemShape, first: Tensor, symmetries: tuple[str, ...], generator: torch.Generator
    ) -> "ReferenceFrame":
        """Frames drawn at random among some symmetries: augmentation.

        Shifts by whole points, reversals and exchanges of axes, boosts and offsets by a normal number of the
        field's own deviation, factors between 1/2 and 2.
        """
        frame = cls.at_rest(shape, first)
        declared, count, device = shape.problem.symmetries, first.shape[0], first.device
        level, scale = frame.level, frame.scale
        velocity = offset = reversed_ = exchanged = None
        if "shift" in symmetries:
            points = shape.grid[0]
            offset = torch.randint(points, (count,), generator=generator, device=device) / points
        if "reflection" in symmetries:
            reversed_ = torch.rand(count, 1, generator=generator, device=device) < 0.5
        if "square" in symmetries:
            reversed_ = torch.rand(count, 2, generator=generator, device=device) < 0.5
            exchanged = torch.rand(count, generator=generator, device=device) < 0.5
        moved = (declared.galilean,) if "galilean" in symmetries else ()
        shifted = declared.offset if "offset" in symmetries else ()
        for name in (*moved, *shifted):
            assert name is not None
            channel = shape.names.index(name)
            deviation = first[..., channel].flatten(1).std(dim=1)
            level[:, channel] = deviation * torch.randn(count, generator=generator, device=device)
            if name in moved:
                velocity = level[:, channel] / shape.length
        if "scaling" in symmetries:
            factor = 2.0 ** (2 * torch.rand(count, generator=generator, device=device) - 1)
            for name in declared.scaling:
                scale[:, shape.names.index(name)] = factor
        return cls(shape, level, scale, velocity, offset, reversed_, exchanged)

    @classmethod
    def group(cls, shape: ProblemShape, first: Tensor, symmetries: tuple[str, ...]) -> "list[ReferenceFrame]":
        """One frame for each element of the group that some symmetries make, the one at rest first.

        Of shifts only those within a token: by whole tokens, networks on tokens of a periodic domain commute with
        them anyway (but for those that halve the grid).
        """
        frame, count = cls.at_rest(shape, first), first.shape[0]
        steps = range(shape.grid[0] // shape.tokens[0] if "shift" in symmetries else 1)
        axes = 2 if "square" in symmetries else 1 if "reflection" in symmetries else 0
        turns = list(itertools.product((False, True), repeat=axes))
        swaps = (False, True) if "square" in symmetries else (False,)
        return [
            replace(
                frame,
                offset=first.new_full((count,), step / shape.grid[0]) if step else None,
                reversed=torch.tensor(turn, device=first.device).expand(count, -1) if any(turn) else None,
                exchanged=torch.ones(count, dtype=torch.bool, device=first.device) if swap else None,
            )
            for swap in swaps
            for turn in turns
            for step in steps
        ]

    def conditioning(self, scalars: Tensor) -> Tensor:
        """Logarithms of the dimensionless numbers, [n, S] or [S], with this frame's scale as amplitude: [n, S]."""
        scaled = self._scaled
        if not scaled:
            return scalars.expand(self.scale.shape[0], -1)
        factor = self.scale.new_zeros(len(self.shape.problem.numbers))
        for index, number in enumerate(self.shape.problem.numbers):
            factor[index].fill_(float(number.get(AMPLITUDE, 0)))
        return scalars + self.scale[:, scaled[0], None].log() * factor

    def times(self, elapsed: Tensor) -> Tensor:
        """Times [t] in this frame's units, [n, t]: where the amplitude is a speed, a smaller one is a longer time."""
        exponent = sum(
            number.get(AMPLITUDE, 0) for number in self.shape.problem.numbers if TIME_STEP in number
        )
        scaled = self._scaled
        if not (scaled and exponent):
            return elapsed.expand(self.scale.shape[0], -1)
        return elapsed * self.scale[:, scaled[0], None] ** exponent

    @property
    def _scaled(self) -> list[int]:
        """Channels that share the amplitude; of other variables than the declared ones fewer."""
        scaling = self.shape.problem.symmetries.scaling
        return [channel for channel, name in enumerate(self.shape.names) if name in scaling]

    def repeat(self, times: int) -> "ReferenceFrame":
        """Every frame `times` times over, one after the other."""
        return self._each(lambda values: values.repeat_interleave(times, dim=0))

    def __getitem__(self, rows: slice | Tensor) -> "ReferenceFrame":
        return self._each(lambda values: values[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ReferenceFrame":
        parts = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})

    def enter(self, fields: Tensor, elapsed: Tensor) -> Tensor:
        """Physical fields [n, t, *grid, C] at times [t] since the first state to this frame, the same shape.

        elapsed: [t], or [n, t] where trajectories were met at different times.
        """
        moved = self._shifted(fields, elapsed, 1.0)
        state = (moved - self._wide(self.level, fields)) / self._wide(self.scale, fields)
        return self._turned(state, back=False)

    def leave(self, fields: Tensor, elapsed: Tensor) -> Tensor:
        """The inverse of `enter`."""
        state = self._turned(fields, back=True)
        state = state * self._wide(self.scale, fields) + self._wide(self.level, fields)
        return self._shifted(state, elapsed, -1.0)

    def _wide(self, values: Tensor, fields: Tensor) -> Tensor:
        return values.view(values.shape[0], *(1,) * (fields.ndim - 2), -1)

    def _shifted(self, fields: Tensor, elapsed: Tensor, sign: float) -> Tensor:
        """fields(x + sign * (offset + velocity * elapsed)); of fields that do not move, themselves."""
        if self.velocity is None and self.offset is None:
            return fields
        distance = torch.zeros_like(self.level[:, :1])
        if self.offset is not None:
            distance = distance + self.offset[:, None]
        if self.velocity is not None:
            distance = distance + self.velocity[:, None] * elapsed.to(self.velocity)
        distance = sign * distance
        points = self.shape.grid[0]
        wavenumber = torch.arange(points // 2 + 1, device=fields.device)
        turn = torch.polar(
            torch.ones_like(distance)[..., None], 2 * torch.pi * distance[..., None] * wavenumber
        )
        spectrum = torch.fft.rfft(fields.float(), dim=2) * turn[..., None]
        return torch.fft.irfft(spectrum, n=points, dim=2)

    def _turned(self, fields: Tensor, *, back: bool) -> Tensor:
        """Reversed, then exchanged; or, on the way back, the other way round."""
        if back:
            fields = self._exchange(fields)
        if self.reversed is not None:
            odd = self.shape.problem.symmetries.odd or ()
            for axis in range(len(self.shape.grid)):
                other = fields.flip(2 + axis)
                for channel, name in enumerate(self.shape.names):
                    if name in odd:
                        other[..., channel].neg_()
                chosen = self.reversed[:, axis].view(-1, *(1,) * (fields.ndim - 1))
                fields = torch.where(chosen, other, fields)
        return fields if back else self._exchange(fields)

    def _exchange(self, fields: Tensor) -> Tensor:
        if self.exchanged is None:
            return fields
        chosen = self.exchanged.view(-1, *(1,) * (fields.ndim - 1))
        return torch.where(chosen, fields.transpose(2, 3), fields)


_TENSORS = ("velocity", "offset", "level", "scale", "reversed", "exchanged")
