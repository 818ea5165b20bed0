"""What networks are given of a problem beside its fields, as tensors on the device that trains."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def scalars_tensor(scalars: Sequence[float], device: torch.device) -> Tensor:
    """Conditioning scalars [S], float32."""
    return torch.tensor(scalars, dtype=torch.float32, device=device)


def known_mask(known: NDArray[np.bool_], device: torch.device) -> Tensor | None:
    """Which fields are known, of the shape of `known`; None, which is cheaper, where all are."""
    return None if known.all() else torch.from_numpy(known).to(device)
