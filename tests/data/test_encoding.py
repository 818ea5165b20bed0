"""Windows that are encoded when they are drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cached import SHAPES, build_small_cache, codec, dataset, datasets
from tiny import NETWORK, build
from torch import Tensor

from ups.data.encoding import EncodingReader
from ups.errors import DataError
from ups.models.codec import Codec
from ups.training.latents import LatentProblem

CPU = torch.device("cpu")


def whole(fields: Tensor, elapsed: Tensor, first: Tensor, known: Tensor | None) -> Tensor:
    """Stands for an encoder: the mean of each field, how many are known, the time, the mean of the first state."""
    means = fields.flatten(2, -2).mean(dim=2)
    count = (
        torch.full((*fields.shape[:2], 1), 9.0) if known is None else known.sum(dim=2, keepdim=True).float()
    )
    start = first.flatten(1).mean(dim=1)[:, None, None].expand(-1, fields.shape[1], 1)
    return torch.cat([means, count, elapsed[..., None], start], dim=2).unsqueeze(2)


@pytest.mark.parametrize("name", SHAPES)
def test_the_encoder_sees_exact_fields_their_time_the_first_state_and_what_is_known(name):
    data = dataset(name)
    rows = data.splits["train"]
    reader = EncodingReader(data, rows, whole, device=CPU)
    drawn, starts = np.array([1, 0, 1]), np.array([0, 0, data.fields.shape[1] - 2])
    windows = reader.windows(drawn, starts, 2)
    assert windows.latents is not None
    for place, (row, start) in enumerate(zip(rows[drawn], starts, strict=True)):
        for frame in range(2):
            exact = torch.from_numpy(data.fields[row, start + frame])
            latent = windows.latents[place, frame, 0]
            torch.testing.assert_close(latent[:-3], exact.flatten(0, -2).mean(dim=0))
            known = data.known[start + frame]
            assert latent[-3] == (9 if data.known.all() else known.sum())
            assert latent[-2].item() == pytest.approx(data.time_step * (start + frame))
            assert latent[-1].item() == pytest.approx(data.fields[row, 0].mean(), abs=1e-6)


def test_a_window_is_in_the_frame_of_its_trajectory_wherever_it_starts(tmp_path):
    """Latents of a window are those of the whole trajectory, whose frame moves since the first state."""
    moving = replace(SHAPES["waves"], exact=("shift", "reflection", "galilean", "scaling"))
    data = dataset("waves")
    linear = {"encoder": NETWORK | {"depth": 0}, "decoder": NETWORK | {"depth": 0}}
    frozen = build("codec", shapes={"waves": moving}, **linear)
    assert isinstance(frozen, Codec)
    problem = LatentProblem(frozen.of("waves"), data, CPU)
    rows = np.arange(4)
    whole_trajectories = problem.latents(rows)
    reader = EncodingReader(data, rows, problem.encode, device=CPU)
    starts = np.array([2, 0, 3, 1])
    windows = reader.windows(rows, starts, 2)
    assert windows.latents is not None
    for row, start in enumerate(starts):
        exact = whole_trajectories[row, start : start + 2]
        torch.testing.assert_close(windows.latents[row], exact, rtol=1e-4, atol=1e-4)


def test_no_gradient_is_recorded(tmp_path):
    artifact, _ = build_small_cache(tmp_path, datasets("waves"))
    of = codec(artifact).of("waves")
    of.autoencoder.requires_grad_(True)
    data = dataset("waves")
    problem = LatentProblem(of, data, CPU)
    reader = EncodingReader(data, np.arange(3), problem.encode, device=CPU)
    windows = reader.windows(np.array([0]), np.array([0]), 1)
    assert windows.latents is not None
    assert not windows.latents.requires_grad


@pytest.mark.parametrize("value", [1e5, -70000.0, np.nan, np.inf])
def test_what_no_cache_could_hold_is_refused_here_too(value):
    data = dataset("waves")
    data.fields[4, 1, 2, 0] = value
    EncodingReader(data, np.array([0, 3]), whole, device=CPU)
    with pytest.raises(DataError, match="does not fit float16"):
        EncodingReader(data, np.array([0, 4]), whole, device=CPU)
