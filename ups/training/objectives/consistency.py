"""Consistency distillation of the residual diffusion model."""

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.models.consistency import jump, pseudo_huber
from ups.models.edm import midpoint_step, noised
from ups.training.objectives.diffusion import ResidualExample
from ups.training.objectives.objective import Loss, Objective


class ConsistencyDistillation(Objective):
    """Algorithm 2 of Song et al. 2023, with the target network equal to the online one (stop-gradient).

    y at one angle is moved to the following by one step of the teacher, and the student must give the same
    answer at both. Distance: pseudo-Huber, with weight 1 / (difference of angles) (Song and Dhariwal 2023,
    section 3.5, on angles) over its mean over the levels. (Over its mean in the batch, shares of a batch would not
    add up to the batch.) Rejected: an EMA target (the same paper shows that it biases the fixed point).
    """

    def __init__(self, teacher: nn.Module, angles: Tensor) -> None:
        """angles: decreasing noise levels [N + 1], as from `sampling_angles`."""
        self.teacher = teacher
        self.angles = angles.float().to(next(teacher.parameters()).device)
        self.last = float(angles[-1])
        self.mean_weight = float((1 / (angles[:-1] - angles[1:])).mean())

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        example = ResidualExample.of(model, batch)
        residual, angles = example.residual, self.angles
        index = torch.randint(
            0, len(angles) - 1, (len(residual),), generator=generator, device=residual.device
        )
        angle, following = angles[index], angles[index + 1]
        noise = torch.randn(residual.shape, generator=generator, device=residual.device)
        y = noised(residual, noise, angle)
        with torch.no_grad():
            moved = midpoint_step(example.network(self.teacher), y, angle, following)
            target = jump(example.network(model), moved, following, self.last).float()
        student = jump(example.network(model), y, angle, self.last).float()
        weight = 1 / (angle - following) / self.mean_weight
        error = (student - target).square().mean()
        return Loss((weight * pseudo_huber(student, target)).mean(), {"L_consistency": error})
