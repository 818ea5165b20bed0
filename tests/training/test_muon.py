"""Muon equals torch's, beside an AdamW that equals torch's; each parameter belongs to one of them."""

from typing import Any

import pytest
import torch
from tiny import LINE, SQUARE, fresh, optimizer_of, single_rank
from torch import Tensor, nn

from ups.training.matrices import hidden_matrices
from ups.training.optimizers.muon import MuonAdamW, orthogonalised
from ups.training.placement import Placement

RATES = {"kind": "adamw", "learning_rate": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}
MUON = RATES | {"kind": "muon", "matrix_learning_rate": 0.05, "momentum": 0.9}


class Network(nn.Module):
    """Hidden matrices of several shapes, and everything that is none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Linear(3, 16)
        self.blocks = nn.ModuleList(
            [nn.Linear(16, 16), nn.Linear(16, 48), nn.Linear(48, 16), nn.Linear(16, 16)]
        )
        self.output = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for block in self.blocks:
            x = block(x).tanh()
        return self.output(x)


def take(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int, first: int = 0) -> None:
    """Steps from a number on; the batch of a step is a function of its number."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 3, generator=generator)
        target = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1)
        model.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()


def with_rates(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The learning rates that a training step would set."""
    for group in optimizer.param_groups:
        group["lr"] = RATES["learning_rate"] * group["rate"]
    return optimizer


def test_a_stack_of_matrices_steps_as_they_do_one_by_one():
    generator = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(2, 5, 8, 6, generator=generator)
    stack = nn.Parameter(start.clone())
    single = [nn.Parameter(matrix.clone()) for matrix in start]
    stack.grad = gradients.clone()
    for matrix, gradient in zip(single, gradients, strict=True):
        matrix.grad = gradient.clone()
    for parameters in ([stack], single):
        group = {"params": parameters, "matrices": True, "weight_decay": 0.1}
        optimizer = MuonAdamW([group], Placement(single_rank()), lr=0.05, betas=(0.9, 0.95), momentum=0.9)
        for _ in range(3):
            optimizer.step()
    assert (stack - start).abs().max() > 0.05
    torch.testing.assert_close(stack, torch.stack(list(single)))


def test_it_takes_torchs_steps_on_matrices_and_adamws_on_the_rest():
    """Of the same gradients. torch iterates in bfloat16, whose 8 bits move a step by two hundredths of itself."""
    ours, theirs, start = Network(), Network(), Network()
    matrices = hidden_matrices(dict(theirs.named_parameters()))
    assert len(matrices) == 4
    hidden = {id(matrix) for matrix in matrices}
    rest = [p for p in theirs.parameters() if id(p) not in hidden]
    optimizers = [
        with_rates(optimizer_of(ours, **MUON)),
        torch.optim.Muon(matrices, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original"),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.1},
                {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=1e-2,
            betas=(0.9, 0.95),
        ),
    ]
    for step in range(8):
        generator = torch.Generator().manual_seed(step)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator) * 10.0 ** (step - 4)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for (name, found), expected, before in zip(
            ours.named_parameters(), theirs.parameters(), start.parameters(), strict=True
        ):
            moved = (expected - before).norm()
            assert moved > 1e-3, name
            tolerance = 0.03 if name in MATRICES else 1e-5
            assert (found - expected).norm() < tolerance * moved, (name, step)


MATRICES = {f"blocks.{number}.weight" for number in range(4)}


def test_without_matrices_it_is_adamw_to_the_bit():
    ours, theirs = Network(), Network()
    build = optimizer_of(theirs, **RATES)
    assert type(build) is torch.optim.AdamW
    split = [{"params": [p for p in ours.parameters() if (p.ndim >= 2) == matrix], "weight_decay": decay, "rate": 1.0}
             for matrix, decay in ((True, 0.1), (False, 0.0))]  # fmt: skip
    take(MuonAdamW(split, Placement(single_rank()), lr=1e-2, betas=(0.9, 0.95), momentum=0.9), ours, 5)
    take(build, theirs, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_come_near_one_whatever_they_were(shape):
    """The iteration's coefficients are for speed: values end between 0.7 and 1.2 (Jordan et al. 2024)."""
    matrices = (
        torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-6, 6, 5)[:, None, None]
    )
    found = orthogonalised(matrices)
    assert found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3
    assert (values > 0.5).float().mean() > 0.9
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    exact = left @ right
    agreement = (found * exact).flatten(1).sum(dim=1) / (
        found.flatten(1).norm(dim=1) * exact.flatten(1).norm(dim=1)
    )
    assert agreement.min() > 0.95
    for number in range(5):
        torch.testing.assert_close(
            orthogonalised(matrices[number : number + 1])[0], found[number], rtol=1e-4, atol=1e-4
        )
    assert orthogonalised(torch.zeros(1, *shape)).abs().max() == 0


@pytest.mark.parametrize("rates", [MUON, RATES], ids=["muon", "adamw"])
@pytest.mark.parametrize("linear_path", ["none", "trained"])
@pytest.mark.parametrize("kind", ["transformer", "convolution", "pdet_unet", "hybrid"])
def test_every_trainable_parameter_is_claimed_exactly_once(kind, linear_path, rates):
    model = operator(kind, linear_path)
    frozen = next(model.parameters()).requires_grad_(False)
    groups = optimizer_of(model, **rates).param_groups
    claimed = [id(p) for group in groups for p in group["params"]]
    assert sorted(claimed) == sorted(id(p) for p in model.parameters() if p is not frozen)
    for group in groups:
        matrices = {p.ndim >= 2 for p in group["params"]}
        assert matrices == {group["weight_decay"] > 0}, "only matrices decay"
        assert group["rate"] == (5.0 if group.get("matrices") else 1.0)


SIZES: dict[str, dict[str, Any]] = {
    "transformer": {"width": 16, "depth": 2, "heads": 2, "ratio": 2},
    "convolution": {"width": 16, "dilations": [1, 2], "modulated": True},
    "pdet_unet": {"width": 16, "depth": 1, "levels": 1, "heads": 2, "ratio": 2},
    "hybrid": {"width": 16, "dilations": [1, 2], "heads": 2, "ratio": 2},
}


def operator(kind: str, linear_path: str = "none") -> nn.Module:
    shapes = {"line": LINE, "square": SQUARE}
    return fresh("operator", shapes=shapes, network={"kind": kind} | SIZES[kind], linear_path=linear_path)


@pytest.mark.parametrize("kind", SIZES)
def test_muon_steps_what_maps_hidden_channels_to_hidden_channels(kind):
    """Not the maps in and out of the network, what conditions it, places between walls, nor a linear path."""
    model = operator(kind, "trained")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = {names[id(parameter)] for parameter in hidden_matrices(dict(model.named_parameters()))}
    assert hidden
    for name in hidden:
        *stack, rows, columns = model.get_parameter(name).shape
        assert min(rows, columns) >= 16
        assert stack == ([3] if name.endswith("projections") else []), "queries, keys and values"
    others = {name for name in names.values() if model.get_parameter(name).ndim >= 2} - hidden
    expected = (
        "embedding",
        "lift",
        "output",
        "condition",
        "modulation",
        "walls",
        "linear",
        "merge",
        "split",
        "boundary",
    )
    assert all(any(part in name for part in expected) for name in others), others


def test_a_matrix_without_a_gradient_is_left_alone():
    """Of a problem whose turn it is not."""
    model = Network()
    optimizer = with_rates(optimizer_of(model, **MUON))
    model(torch.randn(4, 3)).square().mean().backward()
    left = model.blocks[1]
    assert isinstance(left, nn.Linear)
    left.weight.grad = None
    before = left.weight.clone()
    optimizer.step()
    assert torch.equal(left.weight, before)
    assert left.weight not in optimizer.state


def test_its_state_goes_through_a_state_dict_bit_for_bit():
    reference, first = Network(), Network()
    take(with_rates(optimizer_of(reference, **MUON)), reference, 6)
    before = with_rates(optimizer_of(first, **MUON))
    take(before, first, 3)
    state = before.state_dict()
    resumed = with_rates(optimizer_of(first, **MUON))
    resumed.load_state_dict(state)
    take(resumed, first, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), reference.parameters(), strict=True))


def test_a_closure_is_refused():
    optimizer = optimizer_of(Network(), **MUON)
    with pytest.raises(ValueError, match="not by a closure"):
        optimizer.step(lambda: 0.0)
