"""Relative errors: scale, units, and shapes that must agree."""

import pytest
import torch

from ups.losses.relative import relative_l2, relative_l2_per_field


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 5, 16, 2), (3, 4, 4, 3), (3, 5, 4, 4, 1)])
def test_each_field_has_its_own_error(shape):
    truth, prediction = normal(*shape), normal(*shape, seed=1)
    errors = relative_l2_per_field(prediction, truth)
    assert errors.shape == (shape[0], shape[-1])
    for sample in range(shape[0]):
        for channel in range(shape[-1]):
            p, y = prediction[sample, ..., channel], truth[sample, ..., channel]
            assert errors[sample, channel].item() == pytest.approx(
                ((p - y).square().sum() / y.square().sum()).sqrt().item(), rel=1e-12
            )


def test_units_of_one_field_do_not_touch_the_error_of_another():
    truth, prediction = normal(4, 6, 8, 2), normal(4, 6, 8, 2, seed=1)
    units = torch.tensor([1e-3, 1e5], dtype=torch.float64)
    torch.testing.assert_close(
        relative_l2_per_field(prediction * units, truth * units), relative_l2_per_field(prediction, truth)
    )
    together = relative_l2(prediction * units, truth * units)
    torch.testing.assert_close(together, relative_l2_per_field(prediction, truth)[:, 1])  # the other is lost


def test_of_one_field_it_is_the_trajectory_relative_l2():
    truth, prediction = normal(4, 6, 8, 1), normal(4, 6, 8, 1, seed=1)
    torch.testing.assert_close(relative_l2_per_field(prediction, truth)[:, 0], relative_l2(prediction, truth))


def test_half_the_amplitude_is_half_the_error():
    truth = normal(4, 6, 8, 3)
    torch.testing.assert_close(
        relative_l2_per_field(truth / 2, truth), torch.full((4, 3), 0.5, dtype=torch.float64)
    )


def test_gradients_flow():
    prediction = normal(2, 3, 4, 2).requires_grad_()
    relative_l2_per_field(prediction, normal(2, 3, 4, 2, seed=1)).sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().min() > 0


@pytest.mark.parametrize("loss", [relative_l2, relative_l2_per_field])
@pytest.mark.parametrize("shape", [(2, 3, 1, 2), (1, 3, 4, 2), (2, 3, 4, 1), (2, 3, 4)])
def test_shapes_that_would_broadcast_are_refused(loss, shape):
    with pytest.raises(ValueError, match="shapes"):
        loss(normal(*shape), normal(2, 3, 4, 2))
