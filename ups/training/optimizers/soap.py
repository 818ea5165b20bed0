"""SOAP for hidden matrices, AdamW for all else, as one optimiser.

SOAP (Vyas et al. 2024, arXiv:2409.11321, algorithm 3) is Adam in the eigenvectors of Shampoo's preconditioners: of the averages of
G G^T and G^T G of a matrix's gradient G. They are renewed every few steps by a power iteration and a QR decomposition. A matrix's
first step only makes them, as in the authors' own code. Biases, gains and the maps in and out of a network are AdamW's.

Matrices of one shape are computed together: what is remembered of each is a slice of one tensor. How many steps each has taken is
remembered on the host, which so knows without waiting for a GPU when eigenvectors are made and renewed.

A step is no CUDA graph: the first one looks into the solver's verdict on the host, and one of `basis_every` does more than the others.
Renewing at every step, and keeping the result of some, would be one graph for all; it would cost a QR decomposition per step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.training.groups import Group
from ups.training.matrices import MatrixOptimizer, matrices_and_others
from ups.training.placement import Placement

_TINY = 1e-8  # Adam's epsilon


def optimizer(
    parameters: Mapping[str, nn.Parameter],
    placement: Placement,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    matrix_learning_rate: float,
    basis_decay: float,
    basis_every: int,
) -> torch.optim.Optimizer:
    """See `ups.training.optimizers`. matrix_learning_rate: peak rate for hidden matrices."""
    del placement  # every rank has whole matrices: the configuration refuses shards
    groups = matrices_and_others(parameters, weight_decay, rate=matrix_learning_rate / learning_rate)
    return SoapAdamW(groups, lr=learning_rate, betas=betas, basis_decay=basis_decay, basis_every=basis_every)


class SoapAdamW(MatrixOptimizer):
    """AdamW whose groups of matrices are stepped by SOAP."""

    def __init__(
        self,
        groups: list[Group],
        *,
        lr: float,
        betas: tuple[float, float],
        basis_decay: float,
        basis_every: int,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self._basis_decay, self._basis_every = basis_decay, basis_every
        self._stacks = [
            stack for group in self.param_groups if group["matrices"] for stack in self._stack(group)
        ]

    def step_matrices(self, group: Group) -> None:
        """See `MatrixOptimizer`."""
        for parameters, whole in self._stacks:
            present = [number for number, parameter in enumerate(parameters) if parameter.grad is not None]
            if len(present) == len(parameters):
                self._step_stack(group, parameters, whole)
            elif present:  # the others are of a problem whose turn it is not
                chosen = [parameters[number] for number in present]
                part = {name: _rows(values, present) for name, values in whole.items()}
                self._step_stack(group, chosen, part)
                for name, values in part.items():
                    _set_rows(whole[name], present, values)

    def _stack(self, group: Group) -> list[tuple[list[nn.Parameter], dict[str, Tensor]]]:
        """Per shape the parameters, and what is remembered of them [n, ...]; the state of each is its slice."""
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        stacks = []
        for (*front, rows, columns), parameters in by_shape.items():
            count = len(parameters)

            def zeros(*shape: int, count: int = count, like: Tensor = parameters[0]) -> Tensor:
                return torch.zeros(count, *shape, dtype=like.dtype, device=like.device)

            whole = {
                "step": torch.zeros(count),
                "exp_avg": zeros(*front, rows, columns),
                "exp_avg_sq": zeros(*front, rows, columns),
                **{f"{side}_{what}": zeros(*front, size, size)
                   for side, size in (("left", rows), ("right", columns)) for what in ("average", "basis")},
            }  # fmt: skip
            for number, parameter in enumerate(parameters):
                self.state[parameter] = {name: values[number] for name, values in whole.items()}
            stacks.append((parameters, whole))
        return stacks

    def _step_stack(self, group: Group, parameters: list[nn.Parameter], own: dict[str, Tensor]) -> None:
        """own: see `_stack`, of these parameters alone; changed in place."""
        gradient = torch.stack([parameter.grad for parameter in parameters if parameter.grad is not None])
        products = {"left": gradient @ gradient.mT, "right": gradient.mT @ gradient}
        for side, product in products.items():
            own[f"{side}_average"].lerp_(product, 1 - self._basis_decay)
        taken = own["step"].tolist()
        counts = own["step"].to(gradient.device, copy=True, non_blocking=True)
        own["step"].add_(1)
        new = [number for number, steps in enumerate(taken) if not steps]
        if new:
            for side in products:
                basis = torch.linalg.eigh(_rows(own[f"{side}_average"], new))[1]
                _set_rows(own[f"{side}_basis"], new, basis.flip(-1))
        if len(new) < len(taken):
            self._move(group, parameters, own, gradient, counts)
        if max(taken) and max(taken) % self._basis_every == 0:
            self._renew(own)

    def _move(
        self,
        group: Group,
        parameters: list[nn.Parameter],
        own: dict[str, Tensor],
        gradient: Tensor,
        counts: Tensor,
    ) -> None:
        """counts: of earlier steps; where there are none, nothing moves."""
        first, second = group["betas"]
        left, right = own["left_basis"], own["right_basis"]
        shape = (-1, *[1] * (gradient.ndim - 1))
        moving = (counts > 0).view(shape)
        rotated = left.mT @ gradient @ right
        own["exp_avg"].copy_(torch.where(moving, own["exp_avg"].lerp(gradient, 1 - first), own["exp_avg"]))
        squares = own["exp_avg_sq"].lerp(rotated.square(), 1 - second)
        own["exp_avg_sq"].copy_(torch.where(moving, squares, own["exp_avg_sq"]))
        times = counts.clamp_min(1).view(shape)
        mean = left.mT @ own["exp_avg"] @ right / (1 - first**times)
        deviation = (own["exp_avg_sq"] / (1 - second**times)).sqrt()
        update = left @ (mean / (deviation + _TINY)) @ right.mT * moving
        rate = torch.as_tensor(group["lr"])
        for parameter, change in zip(parameters, update.unbind(), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcmul_(change, rate.to(parameter.dtype), value=-1)

    def _renew(self, own: dict[str, Tensor]) -> None:
        """One power iteration of each basis, in the order of its eigenvalues; Adam's squares are put in that order too."""
        for side, axis in (("left", -2), ("right", -1)):
            average, basis = own[f"{side}_average"], own[f"{side}_basis"]
            sizes = torch.diagonal(basis.mT @ average @ basis, dim1=-2, dim2=-1)
            order = sizes.argsort(dim=-1, descending=True)
            ordered = basis.take_along_dim(order.unsqueeze(-2), dim=-1)
            basis.copy_(torch.linalg.qr(average @ ordered)[0])
            along = order.unsqueeze(-1 if axis == -2 else -2)
            own["exp_avg_sq"].copy_(own["exp_avg_sq"].take_along_dim(along, dim=axis))


def _rows(values: Tensor, numbers: list[int]) -> Tensor:
    """Some of the first axis, by numbers that the host knows: an index would have to reach the GPU first, which is waited for."""
    return torch.stack([values[number] for number in numbers])


def _set_rows(values: Tensor, numbers: list[int], rows: Tensor) -> None:
    for number, row in zip(numbers, rows.unbind(), strict=True):
        values[number].copy_(row)
