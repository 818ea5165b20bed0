"""Windows that are encoded when they are drawn."""

import numpy as np
import pytest
import torch
from cached import SHAPES, build_small_cache, codec, dataset, datasets
from torch import Tensor

from ups.data.encoding import EncodingStore
from ups.errors import DataError

CPU = torch.device("cpu")


def whole(fields: Tensor, known: Tensor | None) -> Tensor:
    """Stands for an encoder: the mean of each field, and how many fields are known."""
    means = fields.flatten(1, -2).mean(dim=1)
    count = torch.full((len(fields), 1), 9.0) if known is None else known.sum(dim=1, keepdim=True).float()
    return torch.cat([means, count], dim=1).unsqueeze(1)


@pytest.mark.parametrize("name", SHAPES)
def test_the_encoder_sees_exact_fields_and_what_is_known(name):
    data = dataset(name)
    rows = data.splits["train"]
    store = EncodingStore(data, rows, whole, device=CPU)
    drawn, starts = np.array([1, 0, 1]), np.array([0, 0, data.fields.shape[1] - 2])
    windows = store.windows(drawn, starts, 2)
    assert windows.latents is not None
    for place, (row, start) in enumerate(zip(rows[drawn], starts, strict=True)):
        for frame in range(2):
            exact = torch.from_numpy(data.fields[row, start + frame])
            latent = windows.latents[place, frame, 0]
            torch.testing.assert_close(latent[:-1], exact.flatten(0, -2).mean(dim=0))
            known = data.known[start + frame]
            assert latent[-1] == (9 if data.known.all() else known.sum())


def test_no_gradient_is_recorded(tmp_path):
    artifact, _ = build_small_cache(tmp_path, datasets("waves"))
    of = codec(artifact).of("waves")
    of.autoencoder.requires_grad_(True)
    store = EncodingStore(dataset("waves"), np.arange(3), of.encode, device=CPU)
    windows = store.windows(np.array([0]), np.array([0]), 1)
    assert windows.latents is not None
    assert not windows.latents.requires_grad


@pytest.mark.parametrize("value", [1e5, -70000.0, np.nan, np.inf])
def test_what_no_cache_could_hold_is_refused_here_too(value):
    data = dataset("waves")
    data.fields[4, 1, 2, 0] = value
    EncodingStore(data, np.array([0, 3]), whole, device=CPU)
    with pytest.raises(DataError, match="does not fit float16"):
        EncodingStore(data, np.array([0, 4]), whole, device=CPU)
