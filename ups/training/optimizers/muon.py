"""Muon for hidden matrices, AdamW for all else, as one optimiser.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) takes the momentum of a matrix's gradient,
makes it orthogonal by five Newton-Schulz iterations, and steps by that: all directions of the matrix learn at the
same rate. Biases, gains and the maps in and out of a network are AdamW's.

torch.optim.Muon does the same one matrix at a time, in bfloat16, which these CPUs emulate; here matrices of one
shape are iterated together, in float32 on a CPU and bfloat16 on a GPU (tested equal to torch's).
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ups.training.groups import Group
from ups.training.matrices import MatrixOptimizer, matrices_and_others
from ups.training.placement import Placement

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def optimizer(
    parameters: Mapping[str, nn.Parameter],
    placement: Placement,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    matrix_learning_rate: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """See `ups.training.optimizers`. matrix_learning_rate: peak rate for hidden matrices."""
    groups = matrices_and_others(parameters, weight_decay, rate=matrix_learning_rate / learning_rate)
    return MuonAdamW(groups, placement, lr=learning_rate, betas=betas, momentum=momentum)


class MuonAdamW(MatrixOptimizer):
    """AdamW whose groups of matrices are stepped by Muon, with a "momentum"."""

    def __init__(
        self,
        groups: list[Group],
        placement: Placement,
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.placement = placement
        for group in self.param_groups:
            group["momentum"] = momentum

    def step_matrices(self, group: Group) -> None:
        """See `MatrixOptimizer`."""
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov  # pyright: ignore[reportPrivateImportUsage]
        by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter, update in zip(parameters, updates, strict=True):
            whole = self.placement.whole(parameter, update)
            by_shape.setdefault(whole.shape, []).append((parameter, whole))
        for (*_, rows, columns), members in by_shape.items():
            stacked = torch.stack([whole for _, whole in members])
            matrices = stacked.view(-1, rows, columns)
            orthogonal = self.placement.shared_out(orthogonalised, matrices).view(stacked.shape)
            # A tensor, as `build_optimizer` has it, or a number.
            rate = torch.as_tensor(group["lr"] * max(1.0, rows / columns) ** 0.5)
            for (parameter, _), update in zip(members, orthogonal.to(stacked.dtype).unbind(), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                part = self.placement.part(parameter, update)
                parameter.addcmul_(part, rate.to(parameter.dtype), value=-1)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [n, rows, columns] with their singular values brought near 1, by Newton-Schulz iterations."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
