"""Reconstruction counts what is known, and shifts fields only where the problem does not notice."""

from dataclasses import replace

import pytest
import torch
from tiny import LINE, PROBLEM, SQUARE, build, normalisations, waves
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2, relative_l2_per_field
from ups.models.reference_frame import ReferenceFrame
from ups.training.objectives.autoencoder import (
    Normalisation,
    Reconstruction,
    random_shift,
    reconstruction_errors,
)

PATTERNS = torch.tensor([[True, False], [True, True], [False, True]])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("known", [None, torch.ones(3, 2, dtype=torch.bool)])
def test_where_all_is_known_it_is_the_mean_of_the_fields_relative_errors(known):
    decoded, targets = normal(3, 20, 2), normal(3, 20, 2, seed=1)
    expected = torch.stack([relative_l2(decoded[..., c], targets[..., c]) for c in range(2)]).mean(dim=0)
    torch.testing.assert_close(reconstruction_errors(decoded - targets, targets, known), expected)


def test_fields_that_are_not_known_do_not_count():
    decoded, targets = normal(3, 20, 2), normal(3, 20, 2, seed=1) * PATTERNS[:, None]
    errors = reconstruction_errors(decoded - targets, targets, PATTERNS)
    of_field = torch.stack([relative_l2(decoded[..., c], targets[..., c]) for c in range(2)], dim=1)
    torch.testing.assert_close(errors[0], of_field[0, 0])
    torch.testing.assert_close(errors[1], of_field[1].mean())
    torch.testing.assert_close(errors[2], of_field[2, 1])
    elsewhere = torch.where(PATTERNS[:, None], decoded, 1e6)
    assert torch.equal(reconstruction_errors(elsewhere - targets, targets, PATTERNS), errors)


def test_gradients_are_finite_and_none_flows_through_what_is_not_known():
    """Dividing by the norm of an unknown field, which is 0, would poison the gradient of the known ones."""
    decoded = normal(3, 20, 2).requires_grad_()
    targets = normal(3, 20, 2, seed=1) * PATTERNS[:, None]
    reconstruction_errors(decoded - targets, targets, PATTERNS).mean().backward()
    assert decoded.grad is not None
    assert torch.isfinite(decoded.grad).all()
    sizes = decoded.grad.abs().sum(dim=1)
    assert torch.equal(sizes > 0, PATTERNS)


def test_a_batch_of_half_known_frames_trains_every_weight():
    shapes = {"square": SQUARE}
    model = build("autoencoder", shapes=shapes)
    fields = normal(3, 1, 16, 16, 2) * PATTERNS[:, None, None, None]
    batch = Batch("square", torch.zeros(3, 1), fields=fields, known=PATTERNS[:, None])
    objective = Reconstruction(normalisations(shapes))
    objective(model, batch, torch.Generator().manual_seed(0)).total.backward()
    assert all(
        torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters() if p.grad is not None
    )
    assert all(p.grad is not None for p in model.parameters())


class Lookup(nn.Module):
    """Notes what it is given, and gives it back at the points of the grid."""

    def forward(
        self, fields: Tensor, coordinates: None, problem: str, known: Tensor | None, points: None
    ) -> Tensor:
        self.seen = (fields, problem, known)
        return fields.flatten(1, -2)


@pytest.mark.parametrize(("name", "shape"), [(PROBLEM, LINE), ("square", SQUARE)])
def test_targets_are_the_fields_that_the_model_sees(name, shape):
    """A model that is right has no loss, whatever is shifted."""
    objective = Reconstruction(normalisations({name: shape}))
    fields = normal(3, 1, *shape.grid, shape.channels)
    known = None if name == PROBLEM else PATTERNS[:, None]
    model = Lookup()
    for seed in range(5):
        batch = Batch(name, torch.zeros(3, 1), fields=fields, known=known)
        loss = objective(model, batch, torch.Generator().manual_seed(seed))
        assert loss.total.item() == 0.0
    assert model.seen[1] == name
    assert model.seen[2] is None if known is None else torch.equal(model.seen[2], PATTERNS)


class Blurred(nn.Module):
    """Gives back nine tenths of what it is given: an error that varies from sample to sample."""

    def forward(
        self, fields: Tensor, coordinates: None, problem: str, known: Tensor | None, points: None
    ) -> Tensor:
        return 0.9 * fields.flatten(1, -2)


@pytest.mark.parametrize("shape", [replace(LINE, exact=("galilean",)), replace(SQUARE, exact=("scaling",))])
def test_the_loss_of_a_sample_is_the_metric_in_physical_units(shape):
    mean = torch.tensor([3.0, -50.0])[: shape.channels]
    deviation = torch.tensor([0.5, 200.0])[: shape.channels]
    problem = Normalisation(shape, {"beta": 4.0}, mean, deviation)
    objective, generator = Reconstruction({"problem": problem}), torch.Generator().manual_seed(0)
    for seed in range(3):
        fields = 7 + normal(1, 1, *shape.grid, shape.channels, seed=seed)
        loss = objective(Blurred(), Batch("problem", torch.zeros(1, 1), fields=fields), generator).total
        frame, start = ReferenceFrame.of(shape, fields[:, 0], problem.parameters), torch.zeros(1)
        seen = (frame.enter(fields, start) - mean) / deviation
        forecast = frame.leave(0.9 * seen * deviation + mean, start)
        torch.testing.assert_close(loss, relative_l2_per_field(forecast, fields).mean(), rtol=1e-4, atol=0)


def test_what_the_network_sees_is_normalised_and_unknown_values_are_zero():
    mean, deviation = torch.tensor([3.0, -50.0]), torch.tensor([0.5, 200.0])
    objective = Reconstruction({"square": Normalisation(SQUARE, {"beta": 1.0}, mean, deviation)})
    values, model = normal(3, 1, 16, 16, 2), Lookup()
    fields = (values * deviation + mean) * PATTERNS[:, None, None, None]
    batch = Batch("square", torch.zeros(3, 1), fields=fields, known=PATTERNS[:, None])
    objective(model, batch, torch.Generator().manual_seed(0))
    expected = (values * PATTERNS[:, None, None, None])[:, 0]
    torch.testing.assert_close(model.seen[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "outflow"])
def test_what_the_network_sees_is_shifted_on_a_circle_and_stays_between_walls(boundary):
    shape = replace(SQUARE, boundary=boundary)
    objective = Reconstruction(normalisations({"square": shape}))
    fields, model, moved = normal(2, 1, 16, 16, 2), Lookup(), 0
    for seed in range(10):
        objective(
            model, Batch("square", torch.zeros(2, 1), fields=fields), torch.Generator().manual_seed(seed)
        )
        moved += not torch.equal(model.seen[0], fields[:, 0])
    assert moved >= 9 if boundary == "periodic" else moved == 0


def test_fields_are_shifted_periodically_and_all_alike():
    fields = waves(4, 1)[:, 0]
    offsets = set()
    for seed in range(60):
        shifted = random_shift(fields, (True,), torch.Generator().manual_seed(seed))
        (offset,) = [n for n in range(32) if torch.equal(shifted, fields.roll(n, dims=1))]
        offsets.add(offset)
    assert len(offsets) > 20


@pytest.mark.parametrize("periodic", [(True, True), (True, False), (False, True), (False, False)])
def test_only_periodic_axes_are_shifted_and_each_by_its_own_offset(periodic):
    fields = normal(2, 6, 8, 2)
    seen = set()
    for seed in range(80):
        shifted = random_shift(fields, periodic, torch.Generator().manual_seed(seed))
        (offsets,) = [
            (x, y)
            for x in range(6)
            for y in range(8)
            if torch.equal(shifted, fields.roll((x, y), dims=(1, 2)))
        ]
        seen.add(offsets)
    for axis, (wraps, points) in enumerate(zip(periodic, (6, 8), strict=True)):
        assert {offsets[axis] for offsets in seen} == (set(range(points)) if wraps else {0})
    if periodic == (True, True):
        assert len({x - y for x, y in seen}) > 6, "the offsets of the axes are independent"
