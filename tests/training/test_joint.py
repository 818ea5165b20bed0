"""Operator, encoder and decoder together: which loss moves which of them, and from when on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import LINE, NETWORK, PROBLEM, build, evolutions, fresh, random_batch, waves

from ups.data.batch import Batch
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.training.objectives.joint import JointLoss, JointModel, JointSettings
from ups.training.objectives.operator import RolloutLoss

PLAIN = JointSettings(start=10, encoder_weight=0.0, decoder_weight=0.0, ramp=0, every=1, queries=None)
PARTS = {
    "operator": "operator.",
    "encoder": "codec.autoencoder.encoder.",
    "decoder": "codec.autoencoder.decoder.",
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def joint(latent_dim: int = 4, *, lossless: bool = False, **settings: Any) -> tuple[JointModel, JointLoss]:
    empty = {"encoder": NETWORK | {"depth": 0}, "decoder": NETWORK | {"depth": 0}}
    made = (
        fresh("codec", latent_dim=latent_dim, **empty) if lossless else build("codec", latent_dim=latent_dim)
    )
    operator = build("operator", latent_dim=latent_dim)
    assert isinstance(made, Codec)
    assert isinstance(operator, LatentOperator)
    errors = [
        RolloutLoss(made, evolutions({PROBLEM: LINE}), rollout_steps=2, of_fields=f) for f in (False, True)
    ]
    return JointModel(operator, made), JointLoss(*errors, replace(PLAIN, **settings))


def batch(step: int) -> Batch:
    return replace(random_batch(4, 3), step=step)


def moved(model: JointModel) -> set[str]:
    """Parts of the model that have a gradient other than 0."""
    return {
        part
        for part, prefix in PARTS.items()
        if any(
            parameter.grad is not None and parameter.grad.abs().sum() > 0
            for name, parameter in model.named_parameters()
            if name.startswith(prefix)
        )
    }


def test_before_its_time_it_is_the_operators_loss_bit_by_bit():
    model, objective = joint(encoder_weight=1.0, decoder_weight=1.0)
    loss = objective(model, batch(9), generator())
    assert torch.equal(loss.total, objective.frozen(model.operator, batch(9), generator()).total)
    loss.total.backward()
    assert moved(model) == {"operator"}
    assert all(p.grad is None for p in model.codec.parameters()), "an optimiser leaves them alone"


def test_then_the_forecast_moves_all_three():
    model, objective = joint()
    loss = objective(model, batch(10), generator())
    loss.total.backward()
    assert moved(model) == {"operator", "encoder", "decoder"}


@pytest.mark.parametrize("term", ["L_inv_enc", "L_inv_dec"])
def test_the_inverse_losses_move_the_codec_and_never_the_operator(term):
    model, objective = joint(encoder_weight=1.0, decoder_weight=1.0)
    objective(model, batch(10), generator()).terms[term].backward()
    assert moved(model) == {"encoder", "decoder"}


def test_weights_frequency_and_ramp():
    def added(step: int, **settings: Any) -> tuple[float, dict[str, float]]:
        model, objective = joint(**settings)
        objective.prepare(step)
        loss, plain = objective(model, batch(step), generator()), joint()[1]
        terms = {name: term.item() for name, term in loss.terms.items()}
        return loss.total.item() - plain(joint()[0], batch(step), generator()).total.item(), terms

    whole, terms = added(10, encoder_weight=2.0, decoder_weight=0.5)
    assert whole == pytest.approx(2 * terms["L_inv_enc"] + 0.5 * terms["L_inv_dec"], rel=1e-4)
    assert added(15, encoder_weight=2.0, ramp=20)[0] == pytest.approx(0.25 * 2 * terms["L_inv_enc"], rel=1e-4)
    assert added(40, encoder_weight=2.0, ramp=20)[0] == pytest.approx(2 * terms["L_inv_enc"], rel=1e-4)
    between, without = added(11, encoder_weight=2.0, every=3)
    assert between == 0
    assert "L_inv_enc" not in without
    assert "L_inv_enc" in added(13, encoder_weight=2.0, every=3)[1]


def test_a_codec_that_loses_nothing_has_no_inverse_errors_and_queries_are_some_of_its_points():
    model, objective = joint(lossless=True)
    terms = objective(model, batch(10), generator()).terms
    assert terms["L_inv_enc"].item() < 1e-6
    assert terms["L_inv_dec"].item() < 1e-6
    lossy, all_points = joint(latent_dim=2)
    _, few = joint(latent_dim=2, queries=5)
    every = all_points(lossy, batch(10), generator()).terms["L_inv_enc"].item()
    some = {
        few(lossy, batch(10), torch.Generator().manual_seed(n)).terms["L_inv_enc"].item() for n in range(5)
    }
    assert len(some) == 5
    assert all(0.3 < value / every < 3 for value in some)


def test_a_field_that_its_frame_leaves_nothing_of_is_finite():
    """A constant, in the frame of its mean: there is nothing to encode, and nothing to divide by."""
    model, objective = joint(lossless=True, encoder_weight=1.0, decoder_weight=1.0)
    still = replace(LINE, exact=("galilean", "scaling"))
    model.codec.shapes[PROBLEM] = model.operator.shapes[PROBLEM] = still
    assert still.scales_itself
    constant = replace(batch(10), fields=torch.full((4, 3, 32, 1), 0.5), latents=None)
    loss = objective(model, constant, generator())
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_codec_that_maps_everything_to_zero_is_no_way_out():
    model, objective = joint(lossless=True)
    for parameter in model.codec.autoencoder.parameters():
        parameter.data.zero_()
    assert objective(model, batch(10), generator()).total.item() > 0.5


def test_what_the_linear_codec_loses_is_learnt_jointly():
    """Two numbers for the four values of a patch: with a codec that stays, no operator can be as good."""

    def trained(start: int) -> float:
        model, objective = joint(latent_dim=2, lossless=True, start=start, encoder_weight=0.1)
        fields = waves(4, 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(150):
            loss = objective(model, Batch(PROBLEM, torch.zeros(4, 2), step=step, fields=fields), generator())
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
        return objective.moving(
            model, Batch(PROBLEM, torch.zeros(4, 2), fields=fields), generator()
        ).total.item()

    assert trained(start=50) < 0.5 * trained(start=1000)
