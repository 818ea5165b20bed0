"""One time step in latents: what surrounds the network that was chosen."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ups.models.codec import ProblemCodec
from ups.models.embedding import module_key
from ups.models.operators.linear import LinearPath
from ups.models.shape import ProblemShape
from ups.problems import AMPLITUDE, LENGTH, TIME_STEP, Symmetry
from ups.runtime.precision import full_float32

_TINY, _ROUNDING = 1e-12, 1e-5
_FLUX_LENGTHS = 16  # of a domain: waves of this length have fluxes as large as their increments
_RATE = float(_FLUX_LENGTHS)  # undoes it: a rate's flux is as large as the state
_FAR = 0.05  # of a domain: a state that moves so far in a step has half of the network's rate


class LatentOperator(nn.Module):
    """z(t + dt) = a N(z / a), N(z) = S z + network(z, scalars), and what is conserved stays.

    One network may take several time steps: it knows them by the dimensionless number that holds dt, and
    S becomes its power.

    S is the identity or the linear path: a fresh operator is persistence, the best linear map, or diffusion alone.

    Where the linear path is the equation's own diffusion, a step is one of an exponential integrator: what diffuses is
    solved exactly, wave by wave, and the network is the rest of the equation, a rate that is constant over the step,

        z_k(t + dt) = exp(-h) z_k + r (1 - exp(-h)) / h network_k,    h = D (2 pi k)^2,    r = s / (1 + s / s_0)

    (ETD1: Cox and Matthews 2002, doi:10.1006/jcph.2002.6995, eq. 4), where s is the time step in the equation's own units, the
    dimensionless number that holds it. A small state has little time in a step, and little of the network's error. A state larger
    than those of the training does not move on and on in the direction of its first instant: r stays below s_0.
    Rejected: Strang's splitting (its last half step takes away fronts that steepen within the step); the network's part unfiltered,
    or filtered by a sixteenth or a tenth of a step's diffusion; r = 1; r = s, whose errors outside the training range are twice as
    large; s_0 = 0.02; r = s / (1 + (s / s_0)^2)^(1/2), which is no better (LOG.md, 2026-11-28).

    a is the root mean square of the field where amplitude scaling is exact, and 1 elsewhere. It is taken at every
    step, for a field that decays would else leave the range that the network was trained on; the network
    knows it by the dimensionless numbers.

    Where that amplitude never grows and the codec loses nothing, no step makes it grow. A wave that viscosity takes
    away within a step leaves the network's own error behind, which is like no state of the training; without this
    bound it was seen to grow by 1.7 in every step that followed.

    Conserved fields keep their mean exactly: the part of an increment that would change it is taken off, evenly
    over the domain. Or the network's output is a flux, whose differences between neighbouring points are the
    increment, as in a finite volume scheme.
    """

    def __init__(
        self,
        network: nn.Module,
        shapes: Mapping[str, ProblemShape],
        latent_dim: int,
        *,
        linear: Mapping[str, LinearPath],
        linear_path: Mapping[str, Literal["trained", "frozen", "alone", "exact"]],
        conserve: bool | Literal["fluxes"],
        time_steps: Sequence[int] = (1,),
        average: Mapping[str, Sequence[Symmetry]] | None = None,
    ) -> None:
        """linear: the fitted maps, by problem; linear_path: how they are used, of the problems whose step has one.

        time_steps: that forecasts may take, in frames; one of them is 1.
        average: symmetries that forecasts are averaged over, by problem.
        """
        super().__init__()
        self.network, self.shapes, self.conserve = network, dict(shapes), conserve
        self.linear = nn.ModuleDict({module_key(name): path for name, path in linear.items()})
        self.linear_path, self.time_steps = dict(linear_path), tuple(time_steps)
        self.time_step_numbers: dict[str, int] = {}
        self.average = {problem: tuple(symmetries) for problem, symmetries in (average or {}).items()}
        for name, shape in shapes.items():
            key, values = module_key(name), shape.token_grid.patch_points * shape.channels
            amplitude_exponents = torch.tensor(
                [float(number.get(AMPLITUDE, 0)) for number in shape.problem.numbers]
            )
            self.register_buffer(f"amplitude_exponents_{key}", amplitude_exponents, persistent=False)
            time_exponents = torch.tensor(
                [float(number.get(TIME_STEP, 0)) for number in shape.problem.numbers]
            )
            self.register_buffer(f"time_exponents_{key}", time_exponents, persistent=False)
            self.register_buffer(f"unit_{key}", torch.ones(()))
            self.register_buffer(f"bounded_{key}", torch.zeros((), dtype=torch.bool))
            self.register_buffer(f"mass_{key}", torch.zeros(len(conserved_channels(shape)), latent_dim))
            if self._has_fluxes(name):
                conserved = [channel in conserved_channels(shape) for channel in range(shape.channels)]
                self.register_buffer(f"conserved_{key}", torch.tensor(conserved), persistent=False)
            if self._has_fluxes(name) or self._diffuses(name):
                self.register_buffer(f"points_{key}", torch.zeros(latent_dim, values))
                self.register_buffer(f"latents_{key}", torch.zeros(values, latent_dim))
            if self._diffuses(name):
                self.register_buffer(f"offset_{key}", torch.zeros(values))
                exponents, decay = _diffusion_of(shape)
                self.register_buffer(f"diffusion_{key}", exponents, persistent=False)
                self.register_buffer(f"decay_{key}", decay, persistent=False)
                self.time_step_numbers[name] = _time_step_number(shape)

    def set_from_codec(self, codec: ProblemCodec, *, frozen: bool = True) -> None:
        """Take from a codec what an amplitude and a mean are in its latents.

        frozen: the codec is not trained any more.

        Raises:
            ValueError: they are no linear functions of the latents, for the codec is not linear.
        """
        shape, statistics = codec.shape, codec.statistics
        conserved = conserved_channels(shape) if self.conserve else []
        diffuses = self._diffuses(codec.problem)
        if not (shape.scales_itself or conserved or diffuses):
            return
        if codec.autoencoder.encoder.correction or codec.autoencoder.decoder.correction:
            raise ValueError("amplitude, mean and diffusion are linear in the latents of a linear codec only")
        key = module_key(codec.problem)
        encoder, decoder = (
            cast(nn.Linear, part.linear[key]).weight
            for part in (codec.autoencoder.encoder, codec.autoencoder.decoder)
        )
        values = shape.token_grid.patch_points * shape.channels
        if shape.scales_itself:
            deviation = statistics.latent_deviation.square().mean().sqrt()
            unit = (
                deviation * statistics.field_deviation[0] * (len(statistics.latent_deviation) / values) ** 0.5
            )
            self.get_buffer(f"unit_{key}").copy_(unit)
            # What a codec leaves out may come back into sight, and the size of its latents may grow.
            whole = torch.allclose(
                decoder @ decoder.T, torch.eye(len(decoder), device=decoder.device), atol=1e-4
            )
            even = torch.allclose(statistics.latent_deviation, statistics.latent_deviation[0])
            never_grows = all(field.dissipated for field in shape.fields)
            self.get_buffer(f"bounded_{key}").fill_(frozen and whole and even and never_grows)
        weight = decoder * statistics.latent_deviation
        if self._has_fluxes(codec.problem) or diffuses:
            self.get_buffer(f"points_{key}").copy_(weight.T)
            self.get_buffer(f"latents_{key}").copy_(encoder.T / statistics.latent_deviation)
        if diffuses:
            self.get_buffer(f"offset_{key}").copy_(decoder @ statistics.latent_mean)
        if conserved:
            means = weight.view(-1, shape.channels, weight.shape[1]).mean(dim=0)[conserved]
            self.get_buffer(f"mass_{key}").copy_(torch.linalg.qr(means.T.double()).Q.T)

    def forward(self, latents: Tensor, scalars: Tensor, problem: str, stride: int = 1) -> Tensor:
        """Latents [B, K, d], scalars [B, S] (logarithms of dimensionless numbers of a frame) to [B, K, d].

        stride: how many frames later.
        """
        key = module_key(problem)
        if stride > 1:
            scalars = scalars + math.log(stride) * self.get_buffer(f"time_exponents_{key}")
        amplitude = None
        state = latents
        if self.shapes[problem].scales_itself:
            amplitude = _root_mean_square(latents)
            state = latents / amplitude
            logarithm = (amplitude.flatten(1) * self.get_buffer(f"unit_{key}")).log()
            scalars = scalars + logarithm * self.get_buffer(f"amplitude_exponents_{key}")
        given = None if self.linear_path.get(problem) == "alone" else self.network(state, scalars, problem)
        # Networks may compute in less than float32. Increments are thousandths, and what is exact stays so.
        with full_float32(latents.device):
            increment = self._increment(state, given, scalars, problem, stride)
            step = state + self.conserving(increment, problem)
            if amplitude is None:
                return step
            size = _root_mean_square(step)
            grown = self.get_buffer(f"bounded_{key}") & (size > 1 + _ROUNDING)
            return amplitude * torch.where(grown, step / size, step)

    def _increment(
        self, state: Tensor, given: Tensor | None, scalars: Tensor, problem: str, stride: int
    ) -> Tensor:
        """Of the network's output, None where it has no part, and of the linear path."""
        increment = torch.zeros_like(state)
        if given is not None:
            increment = self.differences(given.to(state.dtype), problem)
        if self._diffuses(problem):
            time_step = scalars[:, self.time_step_numbers[problem]].exp()
            increment = _RATE * (time_step / (1 + time_step / _FAR))[:, None, None] * increment
            return self.with_diffusion(state, increment, scalars, problem)
        if problem not in self.linear_path:
            return increment
        moved = state
        for _ in range(stride):
            moved = moved + self.linear[module_key(problem)](moved)
        return increment + (moved - state)

    def linear_step(self, latents: Tensor, problem: str) -> Tensor:
        """One step of the linear map alone, as it was fitted."""
        path = self.linear[module_key(problem)]
        assert isinstance(path, LinearPath)
        return latents + path.as_fitted(latents)

    def linear_of(self, problem: str) -> nn.Module:
        """The linear path of a problem."""
        return self.linear[module_key(problem)]

    def has_linear(self, problem: str) -> bool:
        return module_key(problem) in self.linear

    def with_diffusion(
        self, latents: Tensor, network_increment: Tensor, scalars: Tensor, problem: str
    ) -> Tensor:
        """The increment [B, K, d] of a step, (exp(-h) - 1) z_k + (1 - exp(-h)) / h network_k in waves.

        scalars: [B, S], which tell D = diffusivity * time step / length^2.
        """
        shape, key = self.shapes[problem], module_key(problem)
        (points,) = shape.grid
        diffusion_number = (scalars @ self.get_buffer(f"diffusion_{key}")).exp()
        h = (diffusion_number[:, None] * self.get_buffer(f"decay_{key}"))[..., None]
        decay = torch.expm1(-h)
        phi = torch.where(h > 0, -decay / h.where(h > 0, 1.0), 1.0)
        weight = self.get_buffer(f"points_{key}")
        # The offset needs no amplitude: where fields are scaled by it, codecs take off no mean.
        state, network = (
            torch.fft.rfft(shape.token_grid.unpatchify(values), dim=1)
            for values in (latents @ weight + self.get_buffer(f"offset_{key}"), network_increment @ weight)
        )
        change = torch.fft.irfft(decay * state + (phi - 1) * network, n=points, dim=1)
        return network_increment + shape.token_grid.patchify(change) @ self.get_buffer(f"latents_{key}")

    def differences(self, fluxes: Tensor, problem: str) -> Tensor:
        """Latents of fluxes [B, K, d] to those of their differences, as far as fields are conserved by them."""
        if not self._has_fluxes(problem):
            return fluxes
        shape, key = self.shapes[problem], module_key(problem)
        (points,) = shape.grid
        fields = shape.token_grid.unpatchify(fluxes @ self.get_buffer(f"points_{key}"))
        moved = (fields.roll(-1, dims=1) - fields) * (points / _FLUX_LENGTHS)
        increments = torch.where(self.get_buffer(f"conserved_{key}"), moved, fields)
        return shape.token_grid.patchify(increments) @ self.get_buffer(f"latents_{key}")

    def _diffuses(self, problem: str) -> bool:
        return self.linear_path.get(problem) == "exact"

    def _has_fluxes(self, problem: str) -> bool:
        return self.conserve == "fluxes" and bool(conserved_channels(self.shapes[problem]))

    def conserving(self, change: Tensor, problem: str) -> Tensor:
        """A change of latents [..., K, d] without the part that changes the mean of conserved fields."""
        if not self.conserve:
            return change
        mass = self.get_buffer(f"mass_{module_key(problem)}")
        if not len(mass):
            return change
        return change - (change.mean(dim=-2, keepdim=True) @ mass.T) @ mass


def conserved_channels(shape: ProblemShape) -> list[int]:
    """Fields whose mean the equation keeps: none of a map, and none where something may leave the domain."""
    if shape.problem.is_map or shape.boundary != "periodic":
        return []
    return [channel for channel, field in enumerate(shape.fields) if field.conserved]


def _diffusion_of(shape: ProblemShape) -> tuple[Tensor, Tensor]:
    """[S] by which the dimensionless numbers make parameter * time step / length^2, and [waves] what is left to multiply
    with for the exponent h of every wave.

    Raises:
        ValueError: the equation has no diffusion, or not on such a grid, or its numbers do not tell it.
    """
    problem = shape.problem
    if problem.diffusion is None:
        raise ValueError(
            f"{problem.name} has no diffusion: declare it in ups/problems/equations/{problem.name}.py, or write linear_path: "
            "none"
        )
    if shape.boundary != "periodic" or len(shape.grid) != 1:
        raise ValueError("diffusion is solved exactly on one periodic axis alone: write linear_path: none")
    wanted = {problem.diffusion.parameter: 1.0, TIME_STEP: 1.0, LENGTH: -2.0}
    names = sorted({*wanted, *(name for number in problem.numbers for name in number)})
    numbers = torch.tensor(
        [[float(number.get(name, 0)) for number in problem.numbers] for name in names], dtype=torch.float64
    )
    target = torch.tensor([wanted.get(name, 0.0) for name in names], dtype=torch.float64)
    exponents = torch.linalg.lstsq(numbers, target[:, None]).solution[:, 0]
    if not torch.allclose(numbers @ exponents, target):
        raise ValueError(
            f"the dimensionless numbers of {problem.name} do not tell its diffusion: declare numbers whose product of powers "
            f"is {problem.diffusion.parameter} * time step / length^2"
        )
    waves = 2 * math.pi * torch.arange(shape.grid[0] // 2 + 1, dtype=torch.float64)
    # Rounded in float64 first: a solver's last bits differ between machines.
    return exponents.float(), (problem.diffusion.factor * waves.square()).float()


def _time_step_number(shape: ProblemShape) -> int:
    """Which dimensionless number is the time step in the equation's own units.

    Raises:
        ValueError: none is.
    """
    for place, number in enumerate(shape.problem.numbers):
        if number.get(TIME_STEP) == 1:
            return place
    raise ValueError(
        f"the dimensionless numbers of {shape.problem.name} do not tell its time step: declare one that is proportional to it"
    )


def _root_mean_square(latents: Tensor) -> Tensor:
    """[B, K, d] to [B, 1, 1]."""
    # Not clamped: the root's gradient at a field of nothing would be infinite.
    return (latents.square().mean(dim=(1, 2), keepdim=True) + _TINY**2).sqrt()
