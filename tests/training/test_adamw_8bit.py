"""AdamW with moments of eight bits learns as AdamW does, keeps a quarter of it, and resumes bit for bit."""

import pytest
import torch
from tiny import optimizer_of, state_of
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.training.checkpoint import Checkpoints
from ups.training.objectives import Loss, Objective
from ups.training.step import TrainingState, Update, training_step

SETTINGS = {"learning_rate": 3e-3, "betas": (0.9, 0.95), "weight_decay": 1e-2}
LAYOUT = {"processes": 1, "threads": 1, "data_parallel": "all_reduce"}


class Regression(Objective):
    """Of a fixed random function, on inputs that the generator draws."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        x = torch.randn(32, 64, generator=generator)
        return Loss((model(x) - x.roll(1, dims=-1).tanh()).square().mean())


def started(kind: str) -> TrainingState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
    optimizer = optimizer_of(model, kind=kind, **SETTINGS)
    return state_of(model, Regression(), optimizer, execution=Execution())


def trained(state: TrainingState, steps: int) -> list[float]:
    update = Update(state, torch.Generator(), gradient_clip=1.0)
    batch = Batch(problem="none", scalars=torch.zeros(1, 1))
    losses = []
    for step in range(state.step, state.step + steps):
        update.generator.manual_seed(step)
        losses.append(training_step(state, batch, update, learning_rate=3e-3)["loss"].item())
    return losses


def plain(value: Tensor) -> Tensor:
    return value.dequantize() if is_traceable_wrapper_subclass(value) else value


def moments(state: TrainingState) -> list[Tensor]:
    return [slots[name] for slots in state.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]


def test_it_learns_as_adamw_does_with_a_quarter_of_the_memory():
    plain, small = started("adamw"), started("adamw_8bit")
    before, after = (trained(state, 150) for state in (plain, small))
    assert after[-1] < 0.3 * after[0]
    assert after[-1] == pytest.approx(before[-1], rel=0.05)
    quantised = [value for value in moments(small) if is_traceable_wrapper_subclass(value)]
    assert len(quantised) == 4, "of both matrices, and not of their biases"
    for value in quantised:
        parts = [getattr(value, name) for name in ("codes", "scale")]
        assert sum(part.numel() * part.element_size() for part in parts) < 0.27 * 4 * value.numel()


def test_it_goes_on_bit_for_bit(tmp_path):
    whole = started("adamw_8bit")
    trained(whole, 9)
    first = started("adamw_8bit")
    trained(first, 5)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.load(first, LAYOUT, may_change=False)  # notes the layout
    with checkpoints:
        checkpoints.save(first)
    again = started("adamw_8bit")
    Checkpoints(tmp_path).load(again, LAYOUT, may_change=False)
    for left, right in zip(moments(first), moments(again), strict=True):
        assert type(left) is type(right)
        assert torch.equal(plain(left), plain(right))
    trained(again, 4)
    for name, value in whole.replica.whole_tensors():
        assert torch.equal(value, dict(again.replica.whole_tensors())[name])
