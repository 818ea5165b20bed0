"""How large the fields of a first frame are: the units of scores and drifts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ups.problems import Field

_AT_REST = 1e-3


def sizes(first: Tensor, fields: Sequence[Field]) -> Tensor:
    """Root mean square of each field of first frames [n, x, C], [n, C].

    Of a gas at rest it would be 0: velocity counts at least as a thousandth of sqrt(p / rho), momentum of sqrt(rho e).
    """
    found = first.square().mean(dim=1).sqrt()
    by_name = {field.name: found[:, channel] for channel, field in enumerate(fields)}
    for channel, field in enumerate(fields):
        if field.name == "velocity":
            natural = by_name["pressure"] / by_name["density"]
        elif field.name == "momentum":
            natural = by_name["density"] * by_name["energy"]
        else:
            continue
        found[:, channel] = torch.maximum(found[:, channel], _AT_REST * natural.sqrt())
    return found
