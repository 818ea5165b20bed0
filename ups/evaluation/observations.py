"""A forecast corrected by a few measurements of known noise: the Gaussian posterior, with the covariance of an ensemble.

With anomalies X of M members from their mean, over sqrt(M - 1), the prior covariance is X X^T and a reading y = H z + noise changes
a forecast f by

    X (H X)^T [H X (H X)^T + inflation * diag + noise^2]^-1 (y - H f)

(Evensen 1994; exact for Gaussian members as M grows, and for the sample's own covariance at any M). All leads are corrected by all
readings at once. The inflation, in units of the prior variance at each reading, is fitted on the validation split: what an ensemble says of errors
far from a sensor is less sure than its spread.

Rejected: guidance of the sampler by the gradient of the readings' likelihood (Chung et al. 2023, arXiv:2209.14687). It needs
derivatives through each network call, and a step size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.config.conditioning import Observations
from ups.errors import ConfigurationError
from ups.problems import Problem


@dataclass(frozen=True)
class Sensors:
    """Where fields [n, t, Q, C] of the scored channels are read: indices [O] of lead, point and channel, and the noise."""

    leads: Tensor
    points: Tensor
    channel: int
    noise: float

    @classmethod
    def of(
        cls,
        observations: Observations,
        problem: Problem,
        coordinates: Sequence[Tensor],
        *,
        time_step: float,
        frames: int,
        periodic: bool,
    ) -> "Sensors":
        """At the grid points nearest to the sensors.

        coordinates: of the grid points along each axis.

        Raises:
            ConfigurationError: a sensor lies outside the domain, or a time is none of a frame.
        """
        if found := observations.problem_with(problem, time_step, frames):
            raise ConfigurationError(found[1], where=f"evaluation.ttc.observations.{found[0]}")
        points = []
        for sensor in observations.sensors:
            flat = 0
            for place, axis, (lower, upper) in zip(sensor, coordinates, problem.domain, strict=True):
                distance = (axis - place).abs()
                if periodic:
                    distance = torch.minimum(distance, upper - lower - distance)
                flat = flat * len(axis) + int(distance.argmin())
            points.append(flat)
        leads = torch.tensor([round(at / time_step) - 1 for at in observations.times])
        return cls(
            leads.repeat_interleave(len(points)),
            torch.tensor(points).repeat(len(leads)),
            0,
            observations.noise,
        )

    def read(self, fields: Tensor) -> Tensor:
        """The fields [..., t, Q, C] at the sensors, without noise, [..., O]."""
        return fields[..., self.leads, self.points, self.channel]

    def readings(self, truth: Tensor, generator: torch.Generator) -> Tensor:
        """What sensors say of a truth [n, t, Q, C], [n, O]."""
        exact = self.read(truth)
        noise = torch.randn(exact.shape, generator=generator, device=exact.device, dtype=exact.dtype)
        return exact + self.noise * noise


def corrections(
    members: Tensor, usable: Tensor, innovation: Tensor, sensors: Sensors, inflation: float
) -> Tensor:
    """What readings change a forecast by, [n, t, Q, C].

    Args:
        members: [n, M, t, Q, C], of any units that innovation and noise have.
        usable: [n, M] bool, the others do not count.
        innovation: readings less the forecast at the sensors, [n, O].
    """
    shown = usable[:, :, None, None, None]
    count = usable.sum(dim=1).clamp_min(2)[:, None, None, None, None]
    values = torch.where(shown, members, 0.0).double()
    mean = values.sum(dim=1, keepdim=True) / count
    anomalies = torch.where(shown, values - mean, 0.0) / (count - 1).sqrt()
    seen = sensors.read(anomalies)  # [n, M, O]
    covariance = seen.transpose(1, 2) @ seen
    variance = covariance.diagonal(dim1=1, dim2=2)
    # Where members agree and there is no noise nothing is learnt; the smallest number keeps the matrix regular.
    noise = torch.diag_embed(inflation * variance + sensors.noise**2 + 1e-12 * variance.amax(1, True) + 1e-30)
    weights = seen @ torch.linalg.solve(covariance + noise, innovation.double()[..., None])
    return torch.einsum("nm,nmtqc->ntqc", weights[..., 0], anomalies).to(members)
