"""Randomness is a function of its key, in every process."""

import torch

from ups.runtime.randomness import derive_seed, numpy_generator, torch_generator


def test_the_seed_of_a_key_never_changes():
    """Nor with the process, each of which salts `hash` anew."""
    assert derive_seed(0, "batch", 3) == 7996632322065323521


def test_every_part_of_the_key_counts():
    keys = [(0, "a", 1, 0), (1, "a", 1, 0), (0, "b", 1, 0), (0, "a", 2, 0), (0, "a", 1, 1)]
    streams = {tuple(torch.randn(4, generator=torch_generator(*key)).tolist()) for key in keys}
    assert len(streams) == len(keys)
    assert len({numpy_generator(*key).random() for key in keys}) == len(keys)
