"""Windows from mapped chunks, and the thread that prepares batches."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cached import build_small_cache, codec, datasets
from torch import Tensor

from ups.data.batch import Batch
from ups.data.cache import open_caches
from ups.data.dataset import Dataset
from ups.data.encoding import EncodingReader
from ups.data.loading import open_reader
from ups.data.streaming import ReadAhead, StreamingReader
from ups.data.window_reader import WindowReader
from ups.data.windows import ProblemWindows, WindowSource
from ups.errors import IntegrityError
from ups.training.latents import LatentProblem

CPU = torch.device("cpu")
MODES = ["device", "memory", "stream", "encode"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_cache(tmp_path_factory.mktemp("cache"))[0]


def reader(artifact: Path, name: str, mode: str, data: Dataset) -> WindowReader:
    """The train rows of a problem."""
    cache = open_caches(artifact)[name]
    if mode == "encode":
        problem = LatentProblem(codec(artifact).of(name), data, CPU)
        return EncodingReader(data, data.splits["train"], problem.encode, device=CPU)
    found, resolved = open_reader(cache, cache.rows("train"), mode=mode, device=CPU)  # pyright: ignore[reportArgumentType]
    assert resolved == mode
    return found


def source(
    artifact: Path, mode: str, *, names: tuple[str, ...] = ("waves", "flow", "map"), **changes
) -> WindowSource:
    """Batches of windows of three problems, of their train rows."""
    windows = {}
    for name in names:
        data, cache = datasets()[name], open_caches(artifact)[name]
        windows[name] = ProblemWindows(
            reader=reader(artifact, name, mode, data),
            length=2,
            scalars=cache.scalars,
            known=cache.known,
        )
    settings = {"seed": 3, "purpose": "operator", "batch_size": 6, "device": CPU} | changes
    return WindowSource(windows, **settings)


def values(batch: Batch) -> list[Tensor]:
    assert batch.fields is not None
    assert batch.latents is not None
    return [batch.scalars, batch.fields, batch.latents, *([] if batch.known is None else [batch.known])]


def ulps(a: Tensor, b: Tensor) -> int:
    """Largest distance in units of float16 in the last place, after rounding."""

    def place(x: Tensor) -> Tensor:
        bits = x.half().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return int((place(a) - place(b)).abs().max())


def test_the_same_seed_gives_the_same_batches_in_all_modes(artifact):
    sources = {mode: source(artifact, mode) for mode in MODES}
    seen = set()
    for step in range(12):
        batches = {mode: sources[mode].batch(step) for mode in MODES}
        first = batches["device"]
        seen.add(first.problem)
        for mode, batch in batches.items():
            assert batch.problem == first.problem
            *others, latents = [value for value in values(batch) if value.dtype != torch.bool]
            *expected, expected_latents = [value for value in values(first) if value.dtype != torch.bool]
            assert all(torch.equal(a, b) for a, b in zip(others, expected, strict=True)), mode
            assert latents.dtype == torch.float32
            if mode == "encode":
                assert ulps(latents, expected_latents) <= 2
            else:
                assert torch.equal(latents, expected_latents), mode
    assert seen == {"waves", "flow", "map"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["waves", "flow", "map"])
def test_a_store_gives_the_windows_that_are_asked_for(artifact, mode, name):
    data = datasets()[name]
    rows, length = data.splits["train"], 2
    drawn = np.array([1, 0, 1])
    starts = np.array([data.fields.shape[1] - length, 0, 0])
    found = reader(artifact, name, mode, data)
    assert (found.trajectories, found.frames) == (len(rows), data.fields.shape[1])
    windows = found.windows(drawn, starts, length)
    expected = np.stack([data.fields[rows[r], s : s + length] for r, s in zip(drawn, starts, strict=True)])
    assert windows.fields is not None
    assert windows.latents is not None
    assert torch.equal(windows.fields, torch.from_numpy(expected).half().float())
    assert windows.latents.shape[:2] == (3, length)


@pytest.mark.parametrize("mode", MODES)
def test_a_window_beyond_the_end_is_a_mistake(artifact, mode):
    found = reader(artifact, "waves", mode, datasets()["waves"])
    for start in (-1, 4):
        with pytest.raises(ValueError, match="do not lie within"):
            found.windows(np.array([0]), np.array([start]), 2)


@pytest.mark.parametrize("mode", ["memory", "stream"])
def test_without_fields_there_are_none(artifact, mode):
    cache = open_caches(artifact)["waves"]
    found, _ = open_reader(cache, cache.rows("train"), mode=mode, device=CPU, fields=False)
    windows = found.windows(np.array([0]), np.array([0]), 2)
    assert windows.fields is None
    assert windows.latents is not None


def test_streaming_loads_nothing_in_advance(artifact):
    cache = open_caches(artifact)["waves"]
    found = StreamingReader(cache, cache.rows("train"), device=CPU)
    latents = cache._latents
    assert latents is not None
    assert not latents._mapped
    found.windows(np.array([0]), np.array([0]), 2)
    assert list(latents._mapped) == [0]


def same(a: Batch, b: Batch) -> bool:
    return a.problem == b.problem and all(
        torch.equal(x, y) for x, y in zip(values(a), values(b), strict=True)
    )


def test_batches_read_ahead_are_those_of_the_source(artifact):
    plain = source(artifact, "stream")
    with ReadAhead(source(artifact, "stream"), depth=3) as ahead:
        for step in [*range(8), 5, 6, 20, 21, 3]:  # a resumed run, and one that looks back
            assert same(ahead.batch(step), plain.batch(step))


def test_batches_are_prepared_while_nobody_asks(artifact):
    prepared = []
    inner = source(artifact, "stream")
    original = inner.batch
    inner.batch = lambda step: prepared.append(step) or original(step)  # pyright: ignore[reportAttributeAccessIssue]
    with ReadAhead(inner, depth=3) as ahead:
        ahead.batch(10)
        deadline = time.monotonic() + 20
        while len(prepared) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert prepared == [10, 11, 12, 13]
        ahead.batch(11)
        deadline = time.monotonic() + 20
        while len(prepared) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert prepared == [10, 11, 12, 13, 14]


def test_new_weights_take_effect_at_their_step(artifact):
    plain = source(artifact, "stream", sampling="difficulty_weighted")
    with ReadAhead(source(artifact, "stream", sampling="difficulty_weighted"), depth=4) as ahead:
        for step in range(6):
            assert same(ahead.batch(step), plain.batch(step))
        errors = {"waves": 0.01, "flow": 5.0, "map": 0.01}
        plain.reweigh(6, errors)
        ahead.reweigh(6, errors)
        assert ahead.state() == plain.state()
        later = [ahead.batch(step) for step in range(6, 30)]
        assert all(same(batch, plain.batch(step)) for step, batch in enumerate(later, 6))
        assert sum(batch.problem == "flow" for batch in later) > 10
        resumed = source(artifact, "stream", sampling="difficulty_weighted")
        with ReadAhead(resumed, depth=2) as other:
            other.batch(0)
            other.restore(ahead.state())
            assert all(same(batch, other.batch(step)) for step, batch in enumerate(later, 6))


def test_the_source_is_changed_while_the_thread_is_idle(artifact):
    inner = source(artifact, "stream")
    original, running, overlaps = inner.batch, threading.Event(), []

    def slow(step: int) -> Batch:
        running.set()
        time.sleep(0.05)
        batch = original(step)
        running.clear()
        return batch

    inner.batch = slow  # pyright: ignore[reportAttributeAccessIssue]
    inner.reweigh = lambda step, errors: overlaps.append(running.is_set())  # pyright: ignore[reportAttributeAccessIssue]
    inner.restore = lambda state: overlaps.append(running.is_set())  # pyright: ignore[reportAttributeAccessIssue]
    with ReadAhead(inner, depth=3) as ahead:
        ahead.batch(0)
        assert running.wait(20)
        ahead.reweigh(1, {})
        ahead.batch(1)
        assert running.wait(20)
        ahead.restore({})
    assert overlaps == [False, False]


def test_prepared_batches_are_kept_if_the_weights_stay(artifact):
    with ReadAhead(source(artifact, "stream"), depth=4) as ahead:
        ahead.batch(0)
        kept = list(ahead._ahead)
        ahead.reweigh(1, {"waves": 1.0, "flow": 2.0, "map": 3.0})
        assert list(ahead._ahead) == kept


def test_an_error_of_the_thread_is_raised_where_its_batch_is_asked_for(tmp_path):
    artifact, _ = build_small_cache(tmp_path, datasets("waves"))
    path = artifact / "cache.zarr" / "waves" / "latents" / "c" / "2" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    ahead = ReadAhead(source(artifact, "stream", names=("waves",)), depth=2)
    with pytest.raises(IntegrityError, match="latents/c/2"):
        [ahead.batch(step) for step in range(50)]
    ahead.close()
    assert not named_threads()


def named_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_the_thread_ends_with_the_context(artifact):
    with ReadAhead(source(artifact, "stream"), depth=3) as ahead:
        ahead.batch(0)
        assert len(named_threads()) == 1
    assert not named_threads()
    with pytest.raises(RuntimeError, match="shutdown"):
        ahead.batch(1)


def test_ranks_streaming_share_a_batch(artifact):
    whole = source(artifact, "stream").batch(4)
    parts = [source(artifact, "stream", rank=rank, world=2).batch(4) for rank in range(2)]
    for index, value in enumerate(values(whole)):
        for rank, part in enumerate(parts):
            assert torch.equal(values(part)[index], value[rank::2])
    assert whole.problem == parts[0].problem == parts[1].problem
