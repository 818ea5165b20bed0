"""Peers of the operator: networks that others use, as configurations of the same chain.

A peer is an operator without a codec: a token for every point, a channel for every field, nothing trained before it.
So it goes through the same stages, on the same trajectories, with the same loss, as the operator it is compared with. One has the
operator's codec, for a part of an operator's lead may be that it works on patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ups.config.encoders.points import PointEncoder
from ups.config.load import validate
from ups.config.schema import Configuration
from ups.errors import ConfigurationError


@dataclass(frozen=True)
class Peer:
    """One network.

    Attributes:
        operator: its section model.operator.
        in_2d: what differs on a plane. There a network has as many points as a batch of lines, and with its size for a line would
            take a hundred steps in the time in which others take a thousand.
        on_patches: whether it has the codec of the operator that it is compared with.
        draws_shifts: whether training draws shifts of periodic problems at random; the others commute with them.
            What else the configuration draws at random or averages over, peers do too; frames and exact diffusion are ours.
    """

    operator: Mapping[str, Any] = field(hash=False)
    in_2d: Mapping[str, Any] = field(hash=False)
    on_patches: bool = False
    draws_shifts: bool = False


_FNO = {"kind": "fno", "width": 64, "depth": 4, "modes": 32}
PEERS: dict[str, Peer] = {
    # On a plane as Li et al. 2020 (arXiv:2010.08895, section 5.2) have it for Darcy flow.
    "fno": Peer(_FNO, {"width": 32, "modes": 12}),
    "unet": Peer({"kind": "unet", "width": 32, "depth": 1, "levels": 3}, {"width": 16}, draws_shifts=True),
    "dilated_resnet": Peer(
        {"kind": "convolution", "width": 64, "dilations": [1, 2, 4, 8, 4, 2, 1, 1, 2, 4, 8, 4, 2, 1]},
        {"width": 32, "dilations": [1, 2, 4, 8, 4, 2, 1]},
    ),
    "fno_on_patches": Peer(_FNO, {"modes": 12, "padding": 4}, on_patches=True),
}


def as_peer(
    configuration: Configuration, name: str, grids: Mapping[str, tuple[int, ...]], periodic: set[str]
) -> Configuration:
    """The configuration with a peer for its operator; data, training and evaluation stay as they are.

    Args:
        grids: points per axis of every problem's trajectories.
        periodic: names of the problems without walls.

    Raises:
        ConfigurationError: the peer does not fit the grids, or would be given more than the operator.
    """
    where = f"the peer {name} of {configuration.name}"
    if isinstance(configuration.model.encoder, PointEncoder):
        raise ConfigurationError(
            "model.encoder: points sees points of every first frame, and a peer the whole grid: they would not be given the same",
            where=where,
            fix="compare with model.encoder: {kind: grid}",
        )
    for problem, grid in grids.items():
        if len(set(grid)) > 1:
            raise ConfigurationError(
                f"{problem} has {' x '.join(map(str, grid))} points, and a token grid has as many tokens along every axis",
                where=where,
                fix="compare on a square grid",
            )
    peer, values = PEERS[name], configuration.model_dump(mode="json")
    on_plane = peer.in_2d if max(map(len, grids.values())) > 1 else {}
    operator = {**peer.operator, **on_plane, "linear_path": "none", "conserve": False}
    if peer.on_patches:  # as many wave numbers as there are, where tokens are few
        fewest = min(configuration.tokens(problem) for problem in grids)
        operator["modes"] = min(operator["modes"], fewest - fewest % 2)
    values["model"] |= {
        "operator": operator,
        "symmetries": {
            problem: _symmetries(configuration, problem, peer, periodic=problem in periodic)
            for problem in grids
        },
    }
    if not peer.on_patches:
        values["model"] |= {
            "latent": {
                "tokens": {problem: grid[0] for problem, grid in grids.items()},
                "dim": max(data.channels for data in configuration.problems.values()),
            },
            "encoder": {"depth": 0},
            "decoder": {"depth": 0},
        }
        values["training"]["autoencoder"]["steps"] = 0
    return validate(values, where=where)


def _symmetries(configuration: Configuration, problem: str, peer: Peer, *, periodic: bool) -> dict[str, str]:
    """Those that the configuration draws at random or averages over. Shifts by points are the same as those by tokens
    where every point is one."""
    used = {
        name: use
        for name, use in configuration.symmetries(problem).model_dump().items()
        if use in {"augment", "average"}
    }
    if not peer.on_patches:
        used["shift"] = "augment" if peer.draws_shifts and periodic else "off"
    return used
