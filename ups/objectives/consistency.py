"""Consistency distillation of the residual diffusion model."""

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.diffusion.consistency import jump
from ups.diffusion.edm import denoise, heun_step
from ups.objectives.diffusion import residual_example
from ups.objectives.objective import Loss


class ConsistencyDistillation:
    """Algorithm 2 of Song et al. 2023, with the target network equal to the online one (stop-gradient).

    x at level sigma_{n+1} is moved to sigma_n by one Heun step of the teacher, and the student must give
    the same answer at both. Distance: pseudo-Huber with c = 0.00054 sqrt(D) (Song and Dhariwal 2023,
    arXiv:2310.14189, section 3.3), weight 1 / (sigma_{n+1} - sigma_n) (their eq. in section 3.5) over its
    mean over the levels. (Over its mean in the batch, shares of a batch would not add up to the batch.)
    Rejected: an EMA target (the same paper shows that it biases the fixed point).
    """

    def __init__(self, teacher: nn.Module, levels: Tensor) -> None:
        """levels: decreasing noise levels [N + 1], sigma_max first, sigma_min last."""
        self.teacher = teacher
        self.levels = levels.float()
        self.sigma_min = float(levels[-1])
        self.mean_weight = float((1 / (levels[:-1] - levels[1:])).mean())

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        state, prediction, residual = residual_example(model, batch)
        levels = self.levels.to(state.device)
        index = torch.randint(0, len(levels) - 1, (len(state),), generator=generator, device=state.device)
        sigma, following = levels[index], levels[index + 1]
        noise = torch.randn(state.shape, generator=generator, device=state.device)
        noisy = residual + sigma[:, None, None] * noise

        given = (prediction, state, batch.scalars, batch.problem)
        with torch.no_grad():
            moved = heun_step(
                lambda x, level: denoise(self.teacher, x, level, *given), noisy, sigma, following
            )
            target = jump(model, moved, following, *given, sigma_min=self.sigma_min).float()
        student = jump(model, noisy, sigma, *given, sigma_min=self.sigma_min).float()
        squared = (student - target).square().flatten(1).sum(dim=1)
        c = 0.00054 * residual[0].numel() ** 0.5
        distance = (squared + c**2).sqrt() - c
        weight = 1 / (sigma - following)
        return Loss((weight * distance).mean() / self.mean_weight, {"L_consistency": squared.mean()})
