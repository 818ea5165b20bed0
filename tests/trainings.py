"""Trainings of every objective, tiny, on any device: what a step must be able to do is tested with all of them."""

from typing import Any

import torch
from tiny import LINE, PROBLEM, SQUARE, build, evolutions, normalisations, random_batch
from torch import nn

from ups.data.batch import Batch
from ups.models.codec import Codec
from ups.models.edm import sampling_angles
from ups.training.objectives import Objective
from ups.training.objectives.autoencoder import Reconstruction
from ups.training.objectives.consistency import ConsistencyDistillation
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.objectives.joint import JointLoss, JointModel, JointSettings
from ups.training.objectives.operator import RolloutLoss

TRAININGS = (
    "autoencoder",
    "operator",
    "augmented",
    "square",
    "windows",
    "mix",
    "joint",
    "diffusion",
    "consistency",
)
CPU = torch.device("cpu")


def linear_codec(shapes: dict[str, Any], device: torch.device) -> Codec:
    codec = build("codec", shapes=shapes).requires_grad_(False).to(device)
    assert isinstance(codec, Codec)
    return codec


def square_batch(count: int, seed: int) -> Batch:
    """Of a map, whose solution is not known at first."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.tensor([[True, False], [True, True]])
    return Batch(
        problem="square",
        scalars=torch.zeros(count, SQUARE.scalars),
        fields=torch.randn(count, 2, *SQUARE.grid, 2, generator=generator) * known[:, None, None],
        known=known.expand(count, -1, -1),
    )


def training(name: str, device: torch.device = CPU) -> tuple[nn.Module, Objective]:
    """A model on a device, and its objective."""
    model, objective = _training(name, device)
    return model.to(device), objective


def _training(name: str, device: torch.device) -> tuple[nn.Module, Objective]:
    shapes = {PROBLEM: LINE}
    match name:
        case "autoencoder":
            return build(name), Reconstruction(normalisations(shapes, device))
        case "operator":
            return build(name, scale=0.05), RolloutLoss(
                linear_codec(shapes, device), evolutions(shapes), rollout_steps=2, pushforward_steps=1
            )
        case "augmented":
            moving = evolutions(shapes, ("shift", "reflection", "galilean", "scaling"))
            return build("operator", scale=0.05), RolloutLoss(
                linear_codec(shapes, device), moving, rollout_steps=2, state_noise=0.1, norm="frame"
            )
        case "square":
            square = {"square": SQUARE}
            return build("operator", scale=0.05, shapes=square), RolloutLoss(
                linear_codec(square, device), evolutions(square, ("square",)), rollout_steps=1
            )
        case "windows":  # between walls, so that some tokens of a shifted one do not see each other
            square = {"square": SQUARE}
            network = {"kind": "transformer", "width": 16, "depth": 2, "heads": 2, "ratio": 2}
            windows = network | {"window": 2, "channel_separated": True}
            return build("operator", scale=0.05, shapes=square, network=windows), RolloutLoss(
                linear_codec(square, device), evolutions(square), rollout_steps=1
            )
        case "mix":
            both = {PROBLEM: LINE, "square": SQUARE}
            return build("operator", scale=0.05, shapes=both), RolloutLoss(
                linear_codec(both, device), evolutions(both), rollout_steps=2
            )
        case "joint":
            codec = linear_codec(shapes, device)
            before, after = (
                RolloutLoss(codec, evolutions(shapes), rollout_steps=2, of_fields=fields)
                for fields in (False, True)
            )
            settings = JointSettings(0, encoder_weight=0.1, decoder_weight=0.1, ramp=0, every=1, queries=3)
            return JointModel(build("operator", scale=0.05), codec), JointLoss(before, after, settings)
        case "diffusion":
            return build(name), ResidualDenoising(centre=1.0, std_log_sigma=1.2)
    teacher = build("diffusion", seed=1).requires_grad_(False).to(device)
    angles = sampling_angles(9, sigma_min=0.02, centre=1.0)
    return build("consistency"), ConsistencyDistillation(teacher, angles)


def batch_for(name: str, *, count: int = 8, seed: int = 0) -> Batch:
    """A batch of a training, on the CPU; a mix has its problems in turns."""
    if name in {"square", "windows"} or (name == "mix" and seed % 2):
        return square_batch(count, seed)
    return random_batch(count, seed=seed)
