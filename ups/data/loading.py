"""How a training reads: the values on its device, in the host's memory, or from the cache's files.

`auto` takes the first that fits into half of what is free: the other half is for the model, its activations and
whoever else uses the machine. On a CPU the device is the host. `memory` stands beside `stream` for what fits the host and
not its GPU: a file's pages go when others want the memory, and are then read from the disk again at every batch.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.data.cache import LatentCache
from ups.data.memory import available_bytes
from ups.data.streaming import StreamingReader
from ups.data.window_reader import InMemoryReader, WindowReader
from ups.errors import PreflightError

CachedMode = Literal["device", "memory", "stream"]

_SHARE = 0.5
_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that this process may use: of the device that trains, and of the host."""

    device: int
    host: int


def free_memory(device: torch.device) -> FreeMemory:
    """What is free now. Ranks on one host share its memory (torchrun says how many they are)."""
    host = available_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda":
        return FreeMemory(host, host)
    return FreeMemory(torch.cuda.mem_get_info(device)[0], host)


def open_reader(
    cache: LatentCache,
    rows: NDArray[np.int64],
    *,
    mode: Literal["auto", "device", "memory", "stream"],
    device: torch.device,
    fields: bool = True,
    free: FreeMemory | None = None,
) -> tuple[WindowReader, CachedMode]:
    """Windows of some rows of a cache, and how they are held: the mode, with `auto` resolved.

    Args:
        device: the one that trains.
        fields: whether windows have fields; without them, only latents are held.
        free: None measures it.

    Raises:
        PreflightError: a mode was asked for by name, and the values do not fit.
        IntegrityError: a chunk is not what was written.
    """
    if free is None:
        free = free_memory(device)
    needed = len(rows) * cache.row_bytes(fields=fields)
    chosen: CachedMode
    if mode == "auto":
        if needed <= _SHARE * free.device:
            chosen = "device"
        else:
            chosen = "memory" if needed <= _SHARE * free.host else "stream"
    else:
        chosen = mode
        available = {"device": free.device, "memory": free.host}.get(chosen)
        if available is not None and needed > available:
            raise PreflightError(
                f"{chosen} needs {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free",
                where="loading.mode",
                fix="write auto, or stream",
            )
    if chosen == "stream":
        return StreamingReader(cache, rows, device=device, fields=fields), chosen
    place = device if chosen == "device" else torch.device("cpu")
    latents = _resident(cache.latents, rows, place)
    held = _resident(cache.fields, rows, place) if fields else None
    return InMemoryReader(device=device, fields=held, latents=latents), chosen


def _resident(
    read: Callable[[NDArray[np.int64]], NDArray[np.float16]], rows: NDArray[np.int64], place: torch.device
) -> Tensor:
    """All values [n, t, ...] at a place; on their way to a GPU only some rows at a time are in the host's memory."""
    if place.type == "cpu":
        return torch.from_numpy(read(rows))
    shape = read(rows[:0]).shape[1:]
    values = torch.empty((len(rows), *shape), dtype=torch.float16, device=place)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        values[part] = torch.from_numpy(read(rows[part])).to(place)
    return values
