"""A step that can be captured: nothing in it is read by the host or made from the host's values."""

from typing import Any

import pytest
import torch
from tiny import (
    LINE,
    PROBLEM,
    SQUARE,
    FixedBatches,
    build,
    evolutions,
    normalisations,
    random_batch,
    single_rank,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ups.data.batch import Batch
from ups.models.codec import Codec
from ups.models.edm import sampling_angles
from ups.training.ema import ExponentialMovingAverage
from ups.training.objectives import Objective
from ups.training.objectives.autoencoder import Reconstruction
from ups.training.objectives.consistency import ConsistencyDistillation
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.objectives.joint import JointLoss, JointModel, JointSettings
from ups.training.objectives.operator import RolloutLoss
from ups.training.optimizers import build_optimizer
from ups.training.step import TrainingState, Update, training_step

aten: Any = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default: "reads a value",
    aten.nonzero.default: "has a shape that depends on values",
    aten.masked_select.default: "has a shape that depends on values",
    aten.lift_fresh.default: "makes a tensor of the host's values",
    aten.lift_fresh_copy.default: "makes a tensor of the host's values",
}


class NoHost(TorchDispatchMode):
    """Fails at what would have the host wait for a GPU, or could not be captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            raise AssertionError(f"{func} {WAITING[func]}")
        return func(*args, **(kwargs or {}))


def linear_codec(shapes: dict[str, Any]) -> Codec:
    codec = build("codec", shapes=shapes).requires_grad_(False)
    assert isinstance(codec, Codec)
    return codec


def square_batch(count: int) -> Batch:
    """Of a map, whose solution is not known at first."""
    generator = torch.Generator().manual_seed(0)
    known = torch.tensor([[True, False], [True, True]])
    return Batch(
        problem="square",
        scalars=torch.zeros(count, SQUARE.scalars),
        fields=torch.randn(count, 2, *SQUARE.grid, 2, generator=generator) * known[:, None, None],
        known=known.expand(count, -1, -1),
    )


def training(name: str) -> tuple[nn.Module, Objective]:
    shapes = {PROBLEM: LINE}
    match name:
        case "autoencoder":
            return build(name), Reconstruction(normalisations(shapes))
        case "operator":
            return build(name, scale=0.05), RolloutLoss(
                linear_codec(shapes), evolutions(shapes), rollout_steps=2, pushforward_steps=1
            )
        case "augmented":
            moving = evolutions(shapes, ("shift", "reflection", "galilean", "scaling"))
            return build("operator", scale=0.05), RolloutLoss(
                linear_codec(shapes), moving, rollout_steps=2, state_noise=0.1, norm="frame"
            )
        case "square":
            square = {"square": SQUARE}
            return build("operator", scale=0.05, shapes=square), RolloutLoss(
                linear_codec(square), evolutions(square, ("square",)), rollout_steps=1
            )
        case "joint":
            codec = linear_codec(shapes)
            before, after = (
                RolloutLoss(codec, evolutions(shapes), rollout_steps=2, of_fields=fields)
                for fields in (False, True)
            )
            settings = JointSettings(0, encoder_weight=0.1, decoder_weight=0.1, ramp=0, every=1, queries=3)
            return JointModel(build("operator", scale=0.05), codec), JointLoss(before, after, settings)
        case "diffusion":
            return build(name), ResidualDenoising(centre=1.0, std_log_sigma=1.2)
    teacher = build("diffusion", seed=1).requires_grad_(False)
    angles = sampling_angles(9, sigma_min=0.02, centre=1.0)
    return build("consistency"), ConsistencyDistillation(teacher, angles)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "name", ["autoencoder", "operator", "augmented", "square", "joint", "diffusion", "consistency"]
)
def test_the_host_reads_nothing_in_a_step(name, optimizer):
    model, objective = training(name)
    chosen = build_optimizer(
        model, kind=optimizer, learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=1e-2,
        **({"matrix_learning_rate": 0.02, "momentum": 0.9} if optimizer == "muon" else {}),
    )  # fmt: skip
    state = TrainingState(model, chosen, ExponentialMovingAverage(model, 0.99), FixedBatches(8))
    update = Update(state, objective, torch.Generator(), single_rank(), gradient_clip=1.0, autocast=False)
    for _ in range(2):
        batch = square_batch(8) if name == "square" else random_batch(8)
        objective.variant(batch)
        with NoHost():
            training_step(state, batch, update, learning_rate=1e-3)
    state.finiteness.check(state.step)
