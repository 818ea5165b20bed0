"""SOAP takes the steps of its definition, written out for one matrix, and learns what a badly scaled problem needs."""

import pytest
import torch
from tiny import optimizer_of
from torch import Tensor, nn

SETTINGS = {
    "kind": "soap",
    "learning_rate": 1e-2,
    "betas": (0.9, 0.95),
    "weight_decay": 0.1,
    "matrix_learning_rate": 0.02,
    "basis_decay": 0.8,
    "basis_every": 3,
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        # Square: of a first gradient that is not, some eigenvectors could be any.
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])


def by_definition(weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """Vyas et al., algorithm 3, in double precision; the first gradient only makes the basis, and Adam's squares follow the order
    of the eigenvectors."""
    rate, decay, (first, second) = 0.02, 0.1, SETTINGS["betas"]
    left, right = torch.zeros(4, 4).double(), torch.zeros(4, 4).double()
    mean, square = torch.zeros(4, 4).double(), torch.zeros(4, 4).double()
    bases: list[Tensor] = []
    for t, gradient in enumerate(gradients):
        left = 0.8 * left + 0.2 * gradient @ gradient.T
        right = 0.8 * right + 0.2 * gradient.T @ gradient
        if t == 0:
            bases = [torch.linalg.eigh(average)[1].flip(-1) for average in (left, right)]
            continue
        q, p = bases
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * (q.T @ gradient @ p) ** 2
        adam = (q.T @ mean @ p / (1 - first**t)) / ((square / (1 - second**t)).sqrt() + 1e-8)
        weight = weight * (1 - rate * decay) - rate * q @ adam @ p.T
        if t % 3 == 0:
            orders = [
                (b.T @ a @ b).diagonal().argsort(descending=True)
                for b, a in zip(bases, (left, right), strict=True)
            ]
            square = square[orders[0]][:, orders[1]]
            bases = [
                torch.linalg.qr(average @ basis[:, order])[0]
                for average, basis, order in zip((left, right), bases, orders, strict=True)
            ]
    return weight


def test_it_takes_the_steps_of_its_definition():
    model = Network()
    optimizer = optimizer_of(model, **SETTINGS)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(1e-2 * group["rate"], dtype=torch.float64)
    start = [block.weight.detach().double().clone() for block in model.blocks]
    gradients: list[list[Tensor]] = [[], [], []]
    for step in range(11):
        generator = torch.Generator().manual_seed(step)
        for number, block in enumerate(model.blocks):
            gradient = torch.randn(4, 4, generator=generator) * 10.0 ** (number - 1)
            # The last one has a turn with its first steps and not with the others.
            block.weight.grad = None if number == 2 and step in {4, 5} else gradient.clone()
            if block.weight.grad is not None:
                gradients[number].append(gradient.double())
        optimizer.step()
    for number in (0, 1):
        found = model.blocks[number].weight.detach().double()
        expected = by_definition(start[number], gradients[number])
        assert (expected - start[number]).norm() > 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert torch.isfinite(model.blocks[2].weight).all()


def test_a_matrix_without_a_gradient_is_left_alone():
    model = Network()
    optimizer = optimizer_of(model, **SETTINGS)
    for step in range(4):
        for number, block in enumerate(model.blocks):
            block.weight.grad = None if number == 1 else torch.ones(4, 4) * (step + 1)
        optimizer.step()
    fresh = Network()
    assert torch.equal(model.blocks[1].weight, fresh.blocks[1].weight)
    assert not torch.equal(model.blocks[0].weight, fresh.blocks[0].weight)
    assert optimizer.state[model.blocks[1].weight]["step"] == 0


@pytest.mark.parametrize(("kind", "turns"), [("soap", True), ("adamw", False)])
def test_a_rotated_problem_has_rotated_steps(kind, turns):
    """Of rows and of columns: SOAP knows no axes, Adam does."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(4, 4, generator=generator))[0] for _ in range(2))
    straight, turned = Network(), Network()
    chosen = (
        SETTINGS
        if kind == "soap"
        else {"kind": "adamw", "learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1}
    )
    optimizers = [optimizer_of(model, **chosen) for model in (straight, turned)]
    with torch.no_grad():
        for block in turned.blocks:
            block.weight.copy_(left @ block.weight @ right)
    for _ in range(8):
        for one, other in zip(straight.blocks, turned.blocks, strict=True):
            gradient = torch.randn(4, 4, generator=generator)
            one.weight.grad, other.weight.grad = gradient, left @ gradient @ right
        for optimizer in optimizers:
            optimizer.step()
    found = turned.blocks[0].weight.detach() - left @ straight.blocks[0].weight.detach() @ right
    assert (found.abs().max() < 1e-3) == turns


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="not by a closure"):
        optimizer_of(Network(), **SETTINGS).step(lambda: 0.0)
