"""Each network can learn one batch by heart: a broken gradient path could not."""

import pytest
import torch
from tiny import build, fresh, random_batch, waves

from ups.data.batch import Batch
from ups.diffusion.edm import noise_levels
from ups.losses.relative import relative_l2
from ups.models.codec import Codec
from ups.models.token_grid import cell_centres
from ups.objectives import Objective
from ups.objectives.autoencoder import Reconstruction, random_shift
from ups.objectives.consistency import ConsistencyDistillation
from ups.objectives.diffusion import ResidualDenoising
from ups.objectives.operator import LatentForecast, rollout

WIDE = {"width": 32, "depth": 1, "heads": 4, "ratio": 2}


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
    batch = Batch(scalars=torch.zeros(8, 2), fields=waves(8, 1))
    objective = Reconstruction(cell_centres([32]), query_points=query_points)
    before, after = fit(model, objective, batch, steps=250, rate=1e-2)
    assert before["total"] > 0.8
    assert after["total"] < before["total"] / 8


def test_the_operator_learns_eight_trajectories():
    codec = build("codec").requires_grad_(False)
    assert isinstance(codec, Codec)
    fields = waves(8, 3)
    with torch.no_grad():
        latents = codec.encode(fields.flatten(0, 1)).unflatten(0, (8, 3))
        decoded = codec.decode_normalised(latents.flatten(0, 1), cell_centres([32])).unflatten(0, (8, 3))
    batch = Batch(scalars=random_batch(8).scalars, fields=decoded, latents=latents)
    objective = LatentForecast(codec, cell_centres([32]), field_weight=1.0)
    model = fresh("operator", network=WIDE)
    before, after = fit(model, objective, batch, steps=250, rate=1e-2)
    assert before["L_forward"] > 1e-3
    for name, factor in (("L_forward", 10), ("L_rollout", 10), ("L_field", 3)):
        assert after[name] < before[name] / factor, name


def test_the_operators_loss_is_zero_for_the_true_latents_only():
    class Truth(torch.nn.Module):
        """Looks the next state up."""

        def __init__(self, latents, error: float) -> None:
            super().__init__()
            self.latents, self.error, self.step = latents, error, 0

        def forward(self, state, scalars):
            self.step += 1
            return self.latents[:, self.step] + self.error

    codec = build("codec").requires_grad_(False)
    batch = random_batch(4, 4)
    assert batch.latents is not None
    decoded = codec.decode_normalised(batch.latents.flatten(0, 1), cell_centres([32])).unflatten(0, (4, 4))
    batch = Batch(scalars=batch.scalars, fields=decoded, latents=batch.latents)
    objective = LatentForecast(codec, cell_centres([32]), field_weight=0.5)
    loss = objective(Truth(batch.latents, 0.0), batch, torch.Generator())
    assert loss.total.item() < 1e-6
    loss = objective(Truth(batch.latents, 0.1), batch, torch.Generator())
    assert loss.terms["L_forward"].item() == pytest.approx(0.01, rel=1e-4)
    assert loss.terms["L_rollout"].item() == pytest.approx(0.01, rel=1e-4)
    parts = loss.terms["L_forward"] + loss.terms["L_rollout"] + 0.5 * loss.terms["L_field"]
    assert loss.total.item() == pytest.approx(parts.item(), rel=1e-6)


def test_gradients_flow_through_all_steps_of_a_rollout():
    model = build("operator")
    state = random_batch(2).latents[:, 0].requires_grad_()
    states = rollout(model, state, random_batch(2).scalars, 3)
    assert states.shape == (2, 3, 8, 4)
    (gradient,) = torch.autograd.grad(states[:, 2].sum(), state)
    one = model(state, random_batch(2).scalars)
    assert torch.equal(states[:, 0], one)
    (shortcut,) = torch.autograd.grad(model(one, random_batch(2).scalars).sum(), state)
    assert (gradient - shortcut).abs().max() > 1e-3


def test_fields_are_shifted_periodically_and_all_alike():
    fields = waves(4, 1)[:, 0]
    offsets = set()
    for seed in range(60):
        shifted = random_shift(fields, torch.Generator().manual_seed(seed))
        (offset,) = [n for n in range(32) if torch.equal(shifted, fields.roll(n, dims=1))]
        offsets.add(offset)
    assert len(offsets) > 20


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_relative_l2_of_a_scaled_field_is_its_distance_from_one(factor):
    fields = waves(4, 3)
    torch.testing.assert_close(relative_l2(factor * fields, fields), torch.full((4,), abs(factor - 1)))
    with pytest.raises(ValueError, match="shapes differ"):
        relative_l2(fields[:, :1], fields)


@pytest.mark.parametrize("kind", ["autoencoder", "operator", "diffusion", "consistency"])
def test_every_weight_is_used(kind):
    """A block whose output goes nowhere learns nothing, and no loss would tell."""
    model, batch = build(kind), random_batch(8, 3)
    codec, centres = build("codec", seed=1).requires_grad_(False), cell_centres([32])
    assert isinstance(codec, Codec)
    levels = noise_levels(5, sigma_min=0.02, sigma_max=10.0, rho=7.0)
    objectives: dict[str, Objective] = {
        "autoencoder": Reconstruction(centres, query_points=None),
        "operator": LatentForecast(codec, centres, field_weight=1.0),
        "diffusion": ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2),
        "consistency": ConsistencyDistillation(build("diffusion", seed=1).requires_grad_(False), levels),
    }
    objectives[kind](model, batch, torch.Generator().manual_seed(0)).total.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7]
    assert idle == []
