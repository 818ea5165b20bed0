"""Terms beside the operator's loss."""

import pytest
import torch
from tiny import LINE, PROBLEM, build, evolutions, random_batch

from ups.config.stages.operator import LOSS_TERMS
from ups.losses.terms import loss_term
from ups.models.codec import Codec
from ups.training.objectives.operator import RolloutLoss


@pytest.mark.parametrize("shape", [(2, 3, 16, 1), (2, 3, 8, 12, 2)], ids=["line", "square"])
@pytest.mark.parametrize("kind", LOSS_TERMS)
def test_a_term_is_zero_without_error_and_one_for_an_error_as_large_as_the_field(kind, shape):
    target = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert loss_term(kind, torch.zeros(shape), target, {}) == 0
    assert loss_term(kind, -target, target, {}) == pytest.approx(1.0)
    assert loss_term(kind, 0.5 * target, target, {}) == pytest.approx(0.5)


def test_the_gradient_weighs_a_wave_by_its_wavenumber():
    x = 2 * torch.pi * torch.arange(256) / 256
    target = x.sin().view(1, 1, -1, 1)
    values = [loss_term("gradient", (k * x).sin().view(1, 1, -1, 1), target, {}).item() for k in (1, 2, 4)]
    assert values == pytest.approx([1, 2, 4], rel=1e-2)


def test_a_term_of_a_constant_error_is_zero():
    target = torch.randn(2, 3, 16, 1, generator=torch.Generator().manual_seed(0))
    assert loss_term("gradient", torch.ones(2, 3, 16, 1), target, {}) == 0


def test_it_is_added_with_its_weight_and_without_it_nothing_changes():
    codec, model = build("codec"), build("operator")
    assert isinstance(codec, Codec)

    def loss(terms):
        objective = RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=2, terms=terms)
        return objective(model, random_batch(4), torch.Generator().manual_seed(0))

    plain, added = loss({}), loss({"gradient": {"weight": 0.25}})
    assert torch.equal(plain.total, loss(None).total)
    assert added.terms.keys() - plain.terms.keys() == {"L_gradient"}
    expected = plain.total + 0.25 * added.terms["L_gradient"]
    assert torch.equal(added.total, expected)
    assert added.terms["L_gradient"] > 0
