"""Several time steps in one operator: which step leads to which frame, and what the network is told of it."""

import math

import pytest
import torch
from tiny import LATENT_DIM, PROBLEM, TOKENS, build, fresh
from torch import Tensor

from ups.models.embedding import module_key
from ups.models.evolution import advance, rollout
from ups.models.operators import LatentOperator

SCALARS = torch.tensor([[-3.0, -4.6]])


def states(count: int = 2) -> Tensor:
    return torch.randn(count, TOKENS, LATENT_DIM, generator=torch.Generator().manual_seed(0))


def operator(*time_steps: int, **changes) -> LatentOperator:
    model = build("operator", time_steps=list(time_steps), **changes)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


class Counting(LatentOperator):
    """Adds its stride to a state that counts frames, and one to the number of applications beside it."""

    def __init__(self, *time_steps: int) -> None:
        torch.nn.Module.__init__(self)
        self.time_steps, self.calls = time_steps, 0

    def forward(self, latents: Tensor, scalars: Tensor, problem: str, stride: int = 1) -> Tensor:
        assert len(scalars) == len(latents)
        self.calls += 1
        return latents + torch.tensor([float(stride), 1.0])


@pytest.mark.parametrize("time_steps", [(1,), (1, 2, 4, 8), (8, 1), (1, 3), (2, 1, 16)])
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 40])
def test_every_frame_is_reached_and_none_is_missed(time_steps, frames):
    reached = advance(Counting(*time_steps), torch.zeros(3, 1, 2), torch.zeros(3, 1), PROBLEM, frames)
    assert reached[:, :, 0, 0].tolist() == [list(range(1, frames + 1))] * 3


def test_the_last_of_forty_frames_takes_eight_applications_and_all_of_them_eight_calls():
    """39 = 4 x 8 + 4 + 2 + 1, as any number of frames in the system of two."""
    counting = Counting(1, 2, 4, 8)
    reached = advance(counting, torch.zeros(1, 1, 2), torch.zeros(1, 1), PROBLEM, 40)
    assert reached[0, :, 0, 1].max().item() == 7
    assert reached[0, 38, 0, 1].item() == 7
    assert reached[0, 39, 0, 1].item() == 5
    assert counting.calls == 8


def test_with_one_time_step_it_is_the_rollout():
    model = operator(1)
    together = advance(model, states(), SCALARS.expand(2, -1), PROBLEM, 6)
    assert torch.equal(together, rollout(lambda z: model(z, SCALARS.expand(2, -1), PROBLEM), states(), 6))


def test_a_longer_step_is_told_as_the_number_that_holds_it():
    """dt U / L is the first number of Burgers' equation; nu / (U L) knows of no time."""
    model = operator(1, 4)
    scalars = SCALARS + torch.tensor([[math.log(4.0), 0.0]])
    longer = model(states(), SCALARS.expand(2, -1), PROBLEM, 4)
    torch.testing.assert_close(longer, model(states(), scalars.expand(2, -1), PROBLEM))
    assert not torch.allclose(longer, model(states(), SCALARS.expand(2, -1), PROBLEM))


def test_the_linear_path_of_a_longer_step_is_its_power():
    """So a linear operator reaches every frame by any steps alike."""
    model = fresh("operator", linear_path="frozen", time_steps=[1, 2, 4])
    assert isinstance(model, LatentOperator)
    path = model.get_buffer(f"linear.{module_key(PROBLEM)}.fitted")
    path.copy_(0.1 * torch.randn(path.shape, generator=torch.Generator().manual_seed(1)))
    scalars = SCALARS.expand(2, -1)
    few = advance(model, states(), scalars, PROBLEM, 11)
    torch.testing.assert_close(
        few, rollout(lambda z: model(z, scalars, PROBLEM), states(), 11), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(few[:, 0], few[:, 1])
