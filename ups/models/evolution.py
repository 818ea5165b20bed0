"""How states go on in time: what a problem says of it, and an operator applied again and again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.models.codec import ProblemCodec
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.reference_frame import ReferenceFrame
from ups.problems import Symmetry

# Of all elements of a group: many small batches take longer than few, and on a GPU as long as large ones.
_STATES_AT_ONCE_CPU, _STATES_AT_ONCE_GPU = 64, 1024


@dataclass(frozen=True)
class Evolution:
    """What an objective must know of a problem beside its codec.

    Attributes:
        time_step: between frames, in the problem's units; 1 for a map.
        parameters: of the equation.
        augment: symmetries that are drawn at random.
    """

    time_step: float
    parameters: dict[str, float]
    augment: tuple[Symmetry, ...] = ()


def rollout(step: Callable[[Tensor], Tensor], state: Tensor, steps: int) -> Tensor:
    """Apply a step again and again: a state [B, K, d] to [B, steps, K, d], the given one not included."""
    states = []
    for _ in range(steps):
        state = step(state)
        states.append(state)
    return torch.stack(states, dim=1)


def forecast(
    operator: LatentOperator, codec: ProblemCodec, first: Tensor, scalars: Tensor, frames: int
) -> Forecast:
    """The forecast of the frames after first states [B, K, d] with scalars [B, S].

    Where the operator is averaged over symmetries: the mean of its forecasts of all elements of their group, each
    transformed and brought back (frame averaging, Puny et al. 2022, arXiv:2110.03336, eq. 5). It obeys the symmetry
    whatever the weights, as far as the codec loses nothing, and its members disagree where they are wrong.
    """
    problem = codec.problem
    symmetries = operator.average.get(problem, ())
    if not symmetries:
        return Forecast.single(advance(operator, first, scalars, problem, frames))
    still = torch.zeros(frames, device=first.device)
    fields = codec.fields(first[:, None])
    rest, *transformed = (
        element.repeat(first.shape[0])
        for element in ReferenceFrame.group(codec.shape, fields[:1, 0], symmetries)
    )
    known = None
    if codec.shape.partly_known:
        given = torch.tensor([field.given for field in codec.shape.fields], device=first.device)
        known = given.expand(first.shape[0], 1, -1)
    starts = [first, *(codec.encode(fields, still[:1], frame, known)[:, 0] for frame in transformed)]
    forecasts: list[Tensor] = []
    states_at_once = _STATES_AT_ONCE_GPU if first.is_cuda else _STATES_AT_ONCE_CPU
    # An exported program is for any number of states: no loop may depend on it.
    at_once = len(starts) if torch.compiler.is_exporting() else max(1, states_at_once // first.shape[0])
    while some := starts[len(forecasts) : len(forecasts) + at_once]:
        states = advance(operator, torch.cat(some), scalars.repeat(len(some), 1), problem, frames)
        forecasts += states.unflatten(0, (len(some), first.shape[0])).unbind()
    plain, *others = forecasts
    # Sums of differences: elements differ by thousandths, of whose squares float32 would lose most.
    total, squares = torch.zeros_like(plain), torch.zeros_like(plain)
    for frame, states in zip(transformed, others, strict=True):
        difference = codec.encode(frame.leave(codec.fields(states), still), still, rest) - plain
        total = total + difference
        squares = squares + difference.square()
    count = 1 + len(transformed)
    variance = (squares - total.square() / count).clamp_min(0) / (count - 1)
    return Forecast(plain + total / count, variance.mean(dim=-1, keepdim=True))


def advance(operator: LatentOperator, first: Tensor, scalars: Tensor, problem: str, frames: int) -> Tensor:
    """The frames after a first state [B, K, d], each by few applications: [B, frames, K, d].

    A frame is one stride away from an earlier one, by the longest stride that does not reach beyond the first. So
    as many frames as the stride is long are computed together, and the last frame of 40 takes eight applications
    where strides are 1, 2, 4 and 8. With strides of one frame this is a `rollout`.
    """
    states = [first]
    while (held := len(states)) <= frames:
        stride = max(stride for stride in operator.time_steps if stride <= held)
        before = torch.stack(states[held - stride : frames + 1 - stride], dim=1)
        count = before.shape[1]
        after = operator(before.flatten(0, 1), scalars.repeat_interleave(count, dim=0), problem, stride)
        states.extend(after.unflatten(0, (first.shape[0], count)).unbind(dim=1))
    return torch.stack(states[1:], dim=1)
