"""Each network can learn one batch by heart: a broken gradient path could not."""

from dataclasses import replace

import pytest
import torch
from tiny import GRID, LINE, PROBLEM, SQUARE, build, fresh, random_batch, waves
from torch import Tensor

from ups.data.batch import Batch
from ups.diffusion.edm import noise_levels
from ups.losses.relative import relative_l2
from ups.models.codec import Codec
from ups.models.embedding import module_key
from ups.models.token_grid import cell_centres
from ups.objectives import Objective
from ups.objectives.autoencoder import Reconstruction
from ups.objectives.consistency import ConsistencyDistillation
from ups.objectives.diffusion import ResidualDenoising
from ups.objectives.operator import LatentForecast, rollout

WIDE = {"width": 32, "depth": 1, "heads": 4, "ratio": 2}
SHAPES = {PROBLEM: LINE}
CPU = torch.device("cpu")
CENTRES = cell_centres([GRID])


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


@pytest.mark.parametrize("query_points", [None, 16])
def test_the_autoencoder_learns_eight_fields(query_points):
    model = fresh("autoencoder", encoder=WIDE, decoder=WIDE, latent_dim=6)
    batch = Batch(problem=PROBLEM, scalars=torch.zeros(8, 2), fields=waves(8, 1))
    objective = Reconstruction(SHAPES, query_points=query_points, device=CPU)
    before, after = fit(model, objective, batch, steps=250, rate=1e-2)
    assert before["total"] > 0.8
    assert after["total"] < before["total"] / 8


def test_the_operator_learns_eight_trajectories():
    frozen = frozen_codec()
    codec, fields = frozen.of(PROBLEM), waves(8, 3)
    with torch.no_grad():
        latents = codec.encode(fields.flatten(0, 1)).unflatten(0, (8, 3))
        decoded = codec.decode_normalised(latents.flatten(0, 1), CENTRES).unflatten(0, (8, 3))
    batch = replace(random_batch(8), fields=decoded, latents=latents)
    objective = LatentForecast(frozen, SHAPES, field_weight=1.0, query_points=None, device=CPU)
    model = fresh("operator", network=WIDE)
    before, after = fit(model, objective, batch, steps=250, rate=1e-2)
    assert before["L_forward"] > 1e-3
    for name, factor in (("L_forward", 10), ("L_rollout", 10), ("L_field", 3)):
        assert after[name] < before[name] / factor, name


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


@pytest.mark.parametrize("query_points", [None, 64])
def test_the_autoencoder_learns_eight_samples_of_a_map(query_points):
    """Frames with and without u in one batch, as its training draws them."""
    model = fresh("autoencoder", shapes=MAP, encoder=WIDE, decoder=WIDE, latent_dim=8)
    pairs = map_batch(8)
    assert pairs.fields is not None
    assert pairs.known is not None
    chosen = torch.arange(8) % 2
    frames, known = (values[torch.arange(8), chosen][:, None] for values in (pairs.fields, pairs.known))
    batch = replace(pairs, fields=frames, known=known)
    objective = Reconstruction(MAP, query_points=query_points, device=CPU)
    before, after = fit(model, objective, batch, steps=250, rate=1e-2)
    assert before["total"] > 0.8
    assert after["total"] < before["total"] / 5


def test_the_operator_learns_eight_samples_of_a_map():
    """One step of the latents from (a, unknown) to (a, u), for an untrained codec that keeps all it sees."""
    frozen = frozen_codec(shapes=MAP)
    codec, pairs = frozen.of("square"), map_batch(8)
    assert pairs.fields is not None
    assert pairs.known is not None
    with torch.no_grad():
        latents = codec.encode(pairs.fields.flatten(0, 1), pairs.known.flatten(0, 1)).unflatten(0, (8, 2))
        decoded = codec.decode_normalised(latents[:, 1], cell_centres([16, 16]))
    fields = pairs.fields.clone()
    fields[:, 1] = decoded.view(8, 16, 16, 2)  # what a perfect operator would be decoded to
    batch = replace(pairs, fields=fields, latents=latents)
    objective = LatentForecast(frozen, MAP, field_weight=1.0, query_points=None, device=CPU)
    model = fresh("operator", shapes=MAP, network=WIDE)
    before, after = fit(model, objective, batch, steps=300, rate=1e-2)
    assert set(before) == {"total", "L_forward", "L_field"}, "a map is applied once"
    assert before["L_forward"] > 1e-3
    assert after["L_forward"] < before["L_forward"] / 10
    assert after["L_field"] < before["L_field"] / 3


class Truth(torch.nn.Module):
    """Looks the next state up."""

    def __init__(self, latents: Tensor, error: float) -> None:
        super().__init__()
        self.latents, self.error, self.step = latents, error, 0

    def forward(self, state: Tensor, scalars: Tensor, problem: str) -> Tensor:
        self.step += 1
        return self.latents[:, self.step] + self.error


def test_the_operators_loss_is_zero_for_the_true_latents_only():
    frozen = frozen_codec()
    batch = random_batch(4, 4)
    assert batch.latents is not None
    decoded = frozen.of(PROBLEM).decode_normalised(batch.latents.flatten(0, 1), CENTRES).unflatten(0, (4, 4))
    batch = replace(batch, fields=decoded)
    objective = LatentForecast(frozen, SHAPES, field_weight=0.5, query_points=None, device=CPU)
    loss = objective(Truth(batch.latents, 0.0), batch, torch.Generator())
    assert loss.total.item() < 1e-6
    loss = objective(Truth(batch.latents, 0.1), batch, torch.Generator())
    assert loss.terms["L_forward"].item() == pytest.approx(0.01, rel=1e-4)
    assert loss.terms["L_rollout"].item() == pytest.approx(0.01, rel=1e-4)
    parts = loss.terms["L_forward"] + loss.terms["L_rollout"] + 0.5 * loss.terms["L_field"]
    assert loss.total.item() == pytest.approx(parts.item(), rel=1e-6)


def test_points_of_the_field_term_are_drawn_anew_and_mean_the_whole_grid():
    """A few points are an estimate of all; which ones, the generator says."""
    frozen, batch = frozen_codec(), random_batch(8, 3)
    model = build("operator")

    def field_loss(query_points: int | None, seed: int) -> float:
        objective = LatentForecast(frozen, SHAPES, field_weight=1.0, query_points=query_points, device=CPU)
        return objective(model, batch, torch.Generator().manual_seed(seed)).terms["L_field"].item()

    whole = field_loss(None, 0)
    assert field_loss(None, 1) == field_loss(GRID, 1) == whole
    estimates = torch.tensor([field_loss(8, seed) for seed in range(40)])
    assert len(estimates.unique()) > 30
    assert estimates.mean().item() == pytest.approx(whole, rel=0.1)
    assert field_loss(8, 3) == field_loss(8, 3)


@pytest.mark.parametrize("scored", [(0,), (1,), (0, 1)])
def test_only_scored_fields_are_compared_each_in_its_own_size(scored):
    """A hundredfold error of a given field costs nothing; of a scored one the relative error is what it is."""
    shapes = {"square": replace(SQUARE, scored=scored)}
    frozen = frozen_codec(shapes=shapes)
    latents = torch.randn(4, 2, 16, 4, generator=torch.Generator().manual_seed(0))
    decoded = frozen.of("square").decode_normalised(latents[:, 1], cell_centres([16, 16])).view(4, 16, 16, 2)
    fields = torch.stack([torch.zeros_like(decoded), decoded * torch.tensor([100.0, 0.5])], dim=1)
    batch = Batch("square", torch.zeros(4, 1), fields=fields, latents=latents)
    objective = LatentForecast(frozen, shapes, field_weight=1.0, query_points=None, device=CPU)
    loss = objective(Truth(latents, 0.0), batch, torch.Generator())
    of_field = {0: 0.99, 1: 1.0}  # |1 - 100| / 100 and |1 - 0.5| / 0.5
    expected = sum(of_field[channel] for channel in scored) / len(scored)
    assert loss.terms["L_field"].item() == pytest.approx(expected, rel=1e-4)


def test_gradients_flow_through_all_steps_of_a_rollout():
    model = build("operator")
    state = random_batch(2).latents[:, 0].requires_grad_()
    states = rollout(model, state, random_batch(2).scalars, PROBLEM, 3)
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
        latents = torch.randn(8, 2, 16, 4, generator=torch.Generator().manual_seed(0))
        batch = replace(map_batch(8), latents=latents, predictions=latents[:, 1] + 0.1 * latents[:, 0])
    levels = noise_levels(5, sigma_min=0.02, sigma_max=10.0, rho=7.0)
    teacher = build("diffusion", shapes=shapes, seed=1).requires_grad_(False)
    objectives: dict[str, Objective] = {
        "autoencoder": Reconstruction(shapes, query_points=None, device=CPU),
        "operator": LatentForecast(
            frozen_codec(shapes=shapes, seed=1), shapes, field_weight=1.0, query_points=None, device=CPU
        ),
        "diffusion": ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2),
        "consistency": ConsistencyDistillation(teacher, levels),
    }
    objectives[kind](model, batch, torch.Generator().manual_seed(0)).total.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7]
    (other,) = shapes.keys() - {problem}
    assert idle == [name for name, _ in model.named_parameters() if f".{module_key(other)}." in name]
