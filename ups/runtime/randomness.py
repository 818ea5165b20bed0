"""Randomness as a function of (seed, purpose, step, rank): a resume needs no generator state.

Keys are hashed with sha256, because Python's `hash` is salted per process.
"""

import hashlib

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from a key of integers and strings."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator whose stream is a function of the key alone."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A counter-based numpy generator whose stream is a function of the key alone."""
    return np.random.Generator(np.random.Philox(derive_seed(*key)))
