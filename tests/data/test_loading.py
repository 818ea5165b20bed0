"""Which reader `auto` chooses, and what a mode that was asked for by name does where it cannot be had."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cached import build_small_cache, datasets

from ups.data.cache import LatentCache, open_caches
from ups.data.loading import FreeMemory, free_memory, open_reader
from ups.data.memory import available_bytes
from ups.data.streaming import StreamingReader
from ups.data.window_reader import InMemoryReader
from ups.errors import PreflightError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    artifact, _ = build_small_cache(tmp_path_factory.mktemp("cache"), datasets("waves"))
    return open_caches(artifact)["waves"]


@pytest.mark.parametrize(
    ("device", "host", "expected"),
    [(2, 2, "device"), (1.99, 2, "memory"), (2, 0, "device"), (1.99, 1.99, "stream"), (0, 100, "memory")],
)
@pytest.mark.parametrize("fields", [True, False])
def test_auto_takes_the_first_that_fits_into_half_of_what_is_free(cache, device, host, expected, fields):
    rows = cache.rows("train")
    needed = len(rows) * cache.row_bytes(fields=fields)
    free = FreeMemory(device=int(device * needed), host=int(host * needed))
    reader, mode = open_reader(cache, rows, mode="auto", device=CPU, fields=fields, free=free)
    assert mode == expected
    assert isinstance(reader, StreamingReader if expected == "stream" else InMemoryReader)
    windows = reader.windows(np.array([1]), np.array([2]), 3)
    assert windows.latents is not None
    expected_latents = cache.latents(rows[1:2])[:, 2:5].astype(np.float32)
    assert torch.equal(windows.latents, torch.from_numpy(expected_latents))


@pytest.mark.parametrize("mode", ["device", "memory"])
def test_a_mode_asked_for_by_name_is_had_or_refused(cache, mode):
    rows = cache.rows("train")
    needed = len(rows) * cache.row_bytes(fields=True)
    enough = FreeMemory(**({"device": 0, "host": 0} | {"host" if mode == "memory" else "device": needed}))
    assert open_reader(cache, rows, mode=mode, device=CPU, free=enough)[1] == mode
    little = FreeMemory(needed - 1, needed - 1)
    with pytest.raises(PreflightError, match=rf"(?s)loading\.mode: {mode} needs .* fix: write auto"):
        open_reader(cache, rows, mode=mode, device=CPU, free=little)
    assert open_reader(cache, rows, mode="stream", device=CPU, free=little)[1] == "stream"


def test_resident_values_are_the_float16_of_the_cache(cache):
    reader, _ = open_reader(cache, cache.rows("train"), mode="memory", device=CPU)
    assert isinstance(reader, InMemoryReader)
    assert reader.latents is not None
    assert reader.latents.dtype == torch.float16
    assert reader.latents.nbytes == len(cache.rows("train")) * cache.row_bytes(fields=False)


def test_ranks_of_one_host_share_its_memory(monkeypatch):
    single = free_memory(CPU)
    assert single.device == single.host
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU).host == pytest.approx(single.host / 4, rel=0.2)


def kernel(directory: Path, groups: dict[str, tuple[str, int, int]], *, own: str = "/job/step") -> int:
    """What is available to a process in a tree of control groups {name: (limit, used, droppable)}."""
    process, control = directory / "proc", directory / "cgroup"
    (process / "self").mkdir(parents=True)
    (process / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   1000 kB\n")
    (process / "self" / "cgroup").write_text(f"1:memory:/old\n0::{own}\n")
    for name, (limit, used, droppable) in groups.items():
        group = control / name
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\n")
    return available_bytes(process, control)


def test_a_job_is_limited_by_every_group_above_it(tmp_path):
    assert kernel(tmp_path / "a", {}) == 1000 * 1024
    assert kernel(tmp_path / "b", {"job": ("max", 10, 0), "job/step": ("max", 10, 0)}) == 1000 * 1024
    assert kernel(tmp_path / "c", {"job": ("50000", 20000, 5000), "job/step": ("max", 10, 0)}) == 35000
    assert kernel(tmp_path / "d", {"job": ("50000", 20000, 0), "job/step": ("9000", 8000, 0)}) == 1000
    assert kernel(tmp_path / "e", {"job": ("100", 200, 0)}) == 0
    assert available_bytes() > 0
