"""Each network can learn one batch by heart: a broken gradient path could not."""

from dataclasses import replace

import pytest
import torch
from tiny import LINE, PROBLEM, SQUARE, build, evolutions, fresh, normalisations, random_batch, waves
from torch import Tensor

from ups.data.batch import Batch
from ups.losses.relative import relative_l2
from ups.models.codec import Codec
from ups.models.edm import sampling_angles
from ups.models.embedding import module_key
from ups.models.evolution import rollout
from ups.models.token_grid import cell_centres
from ups.training.objectives import Objective
from ups.training.objectives.autoencoder import Reconstruction
from ups.training.objectives.consistency import ConsistencyDistillation
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.objectives.operator import RolloutLoss

WIDE = {"width": 32, "depth": 1, "heads": 4, "ratio": 2}
SHAPES = {PROBLEM: LINE}


def frozen_codec(**changes) -> Codec:
    codec = build("codec", **changes).requires_grad_(False)
    assert isinstance(codec, Codec)
    return codec


def fit(
    model, objective, batch: Batch, *, steps: int, rate: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and terms before and after, with the same random numbers at every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        loss = objective(model, batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        history.append(
            {"total": loss.total.item()} | {name: term.item() for name, term in loss.terms.items()}
        )
    return history[0], history[-1]


def test_the_autoencoder_learns_eight_fields():
    """Two numbers for four values."""
    model = fresh("autoencoder", encoder=WIDE, decoder=WIDE, latent_dim=2)
    batch = Batch(problem=PROBLEM, scalars=torch.zeros(8, 2), fields=waves(8, 1))
    before, after = fit(model, Reconstruction(normalisations(SHAPES)), batch, steps=60, rate=1e-2)
    assert before["total"] > 0.5
    assert after["total"] < before["total"] / 10


def test_the_operator_learns_eight_trajectories():
    batch = replace(random_batch(8), fields=waves(8, 3), latents=None)
    objective = RolloutLoss(frozen_codec(), evolutions(SHAPES), rollout_steps=2)
    model = fresh("operator", network={"kind": "transformer"} | WIDE)
    before, after = fit(model, objective, batch, steps=120, rate=1e-2)
    assert set(before) == {"total", "L_forward", "L_rollout"}
    assert before["L_forward"] > 0.1
    for name in before:
        assert after[name] < before[name] / 5, name


def map_samples(count: int) -> Tensor:
    """A smooth coefficient a and a nonlinear function u of it that is 0 at the walls, [n, 16, 16, 2]."""
    x = cell_centres([16])
    bump = (torch.pi * x).sin() @ (torch.pi * x).sin().T
    amplitude = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(3))
    modes = torch.cat([(torch.pi * x).cos(), (2 * torch.pi * x).cos()], dim=1)
    a = torch.einsum("xi,nij,yj->nxy", modes, amplitude, modes)
    u = bump * (1 + a).square()
    return torch.stack([a / a.std(), (u - u.mean()) / u.std()], dim=-1)


def map_batch(count: int) -> Batch:
    """Two frames of a map: the first without u."""
    known = torch.tensor([[True, False], [True, True]])
    fields = map_samples(count)[:, None] * known[:, None, None]
    return Batch("square", torch.zeros(count, 1), fields=fields, known=known.expand(count, -1, -1))


MAP = {"square": SQUARE}


def test_the_autoencoder_learns_eight_samples_of_a_map():
    """Frames with and without u in one batch, as its training draws them."""
    model = fresh("autoencoder", shapes=MAP, encoder=WIDE, decoder=WIDE, latent_dim=8)
    pairs = map_batch(8)
    assert pairs.fields is not None
    assert pairs.known is not None
    chosen = torch.arange(8) % 2
    frames, known = (values[torch.arange(8), chosen][:, None] for values in (pairs.fields, pairs.known))
    batch = replace(pairs, fields=frames, known=known)
    before, after = fit(model, Reconstruction(normalisations(MAP)), batch, steps=60, rate=1e-2)
    assert before["total"] > 0.8
    assert after["total"] < before["total"] / 5


def test_the_operator_learns_eight_samples_of_a_map():
    """One step of the latents from (a, unknown) to (a, u), for an untrained codec that keeps all it sees."""
    objective = RolloutLoss(frozen_codec(shapes=MAP), evolutions(MAP), rollout_steps=4)
    model = fresh("operator", shapes=MAP, network={"kind": "transformer"} | WIDE)
    before, after = fit(model, objective, map_batch(8), steps=100, rate=1e-2)
    assert set(before) == {"total", "L_forward"}, "a map is applied once"
    assert before["L_forward"] > 0.1
    assert after["L_forward"] < before["L_forward"] / 5


def test_the_denoiser_learns_an_error_that_the_forecast_tells():
    """Of the place: every token has the error of its neighbour's steepness, at every level of noise."""
    model = fresh("diffusion", network={"width": 32, "blocks": 1, "dilations": [1], "leads_per_position": 2})
    batch = random_batch(8)
    assert batch.forecasts is not None
    error = batch.forecasts.roll(1, dims=2) - batch.forecasts
    batch = replace(batch, latents=batch.forecasts + error)
    objective = ResidualDenoising(centre=3.0, std_log_sigma=1.2)
    before, after = fit(model, objective, batch, steps=60, rate=1e-2)
    assert before["L_denoise"] > 0.1
    assert after["L_denoise"] < before["L_denoise"] / 5


def test_gradients_flow_through_all_steps_of_a_rollout():
    model = build("operator")
    state = random_batch(2).latents[:, 0].requires_grad_()
    states = rollout(lambda z: model(z, random_batch(2).scalars, PROBLEM), state, 3)
    assert states.shape == (2, 3, 8, 4)
    (gradient,) = torch.autograd.grad(states[:, 2].sum(), state)
    one = model(state, random_batch(2).scalars, PROBLEM)
    assert torch.equal(states[:, 0], one)
    (shortcut,) = torch.autograd.grad(model(one, random_batch(2).scalars, PROBLEM).sum(), state)
    assert (gradient - shortcut).abs().max() > 1e-3


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_relative_l2_of_a_scaled_field_is_its_distance_from_one(factor):
    fields = waves(4, 3)
    torch.testing.assert_close(relative_l2(factor * fields, fields), torch.full((4,), abs(factor - 1)))
    with pytest.raises(ValueError, match="shapes differ"):
        relative_l2(fields[:, :1], fields)


@pytest.mark.parametrize("problem", [PROBLEM, "square"])
@pytest.mark.parametrize("kind", ["autoencoder", "operator", "diffusion", "consistency"])
def test_every_weight_is_used(kind, problem):
    """A block whose output goes nowhere learns nothing, and no loss would tell."""
    shapes = SHAPES | MAP
    model, batch = build(kind, shapes=shapes), random_batch(8, 3)
    if problem == "square":
        latents, forecasts = torch.randn(2, 8, 1, 16, 4, generator=torch.Generator().manual_seed(0))
        batch = replace(
            map_batch(8), latents=latents, forecasts=forecasts, variances=torch.zeros(8, 1, 16, 1)
        )
    if kind == "operator":
        batch = replace(batch, latents=None)  # it encodes what it is not given
    angles = sampling_angles(5, sigma_min=0.02, centre=1.0)
    teacher = build("diffusion", shapes=shapes, seed=1).requires_grad_(False)
    objectives: dict[str, Objective] = {
        "autoencoder": Reconstruction(normalisations(shapes)),
        "operator": RolloutLoss(frozen_codec(shapes=shapes, seed=1), evolutions(shapes), rollout_steps=2),
        "diffusion": ResidualDenoising(centre=1.0, std_log_sigma=1.2),
        "consistency": ConsistencyDistillation(teacher, angles),
    }
    objectives[kind](model, batch, torch.Generator().manual_seed(0)).total.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7]
    (other,) = shapes.keys() - {problem}
    axes = len(shapes[other].grid)
    others = (f".{module_key(other)}.", f".scalars.{shapes[other].equation}.", f".axes_{axes}.")
    assert idle == [name for name, _ in model.named_parameters() if any(part in name for part in others)]
