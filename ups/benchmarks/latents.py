"""What the cache of latents costs: building it, loading it, reading batches from it; each against a named baseline.

Weights are random everywhere: neither a rate of encoding nor one of reading depends on them. Ratios are of
things that were measured in turn in one process, so that whatever else the machine does meets both; rates in
trajectories or bytes per second are only as good as the machine was idle. Files are in the page cache.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from ups.artifacts.files import write_json
from ups.config.schema import Execution
from ups.data.cache import GROUP, LATENTS, LatentCache, open_caches
from ups.data.cache_source import sources_of_artifact
from ups.data.dataset import DESCRIPTION, PART_DESCRIPTION, load_datasets
from ups.data.encoding import EncodingReader
from ups.data.layout import cell_centres
from ups.data.loading import open_reader
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import TRAJECTORIES
from ups.data.streaming import ReadAhead
from ups.data.window_reader import WindowReader
from ups.data.windows import ProblemWindows, WindowSource
from ups.data.zarr_chunks import read_layout
from ups.models.autoencoder import Autoencoder
from ups.models.build import CODEC_FILE, Description, build_model, load_model
from ups.models.codec import Codec
from ups.models.shape import ProblemShape
from ups.problems.generated import LEARNT_SPLITS
from ups.runtime.ranks import Ranks
from ups.stages.cache_encode import build_cache
from ups.training.ema import ExponentialMovingAverage
from ups.training.latents import LatentProblem
from ups.training.objectives.operator import RolloutLoss
from ups.training.optimizers import build_optimizer
from ups.training.parallel import parallelise
from ups.training.step import BatchSource, TrainingState, Update, training_step

ORIGIN_SECONDS = 9.3
"""The origin's build: seconds per trajectory of 201 frames (reference/origin.md)."""

Record = dict[str, Any]

_PROBLEM = "burgers1d"
_FRAMES, _STORED_POINTS, _STRIDE = 201, 1024, 4
_TRAJECTORIES_PER_CHUNK = 128
_BATCH = 32
_REPEATS = 7
_STEPS = 20
_CPU = torch.device("cpu")


def measure_latents(directory: Path, *, threads: int, trajectories: int) -> list[Record]:
    """All measurements, as JSON records; each says what it is in `measure` and `what`.

    Args:
        directory: for the files; what an earlier call left there is used again or written over.
        threads: of the encoder and of torch.
        trajectories: in the cache that is built and read; 512 are 0.6 GB of files in all.
    """
    torch.set_num_threads(threads)
    data = directory / f"data-{trajectories}"
    if not (data / DESCRIPTION).exists():
        _write_trajectories(data, trajectories, frames=_FRAMES, stored_points=_STORED_POINTS, stride=_STRIDE)
    network = {"width": 64, "depth": 2, "heads": 4, "ratio": 2}
    artifact, build = _build(directory / "cache", data, network, tokens=32, dim=16, threads=threads)
    return [
        build,
        *_measure_loads(artifact),
        *_measure_batches(artifact, directory / "layouts"),
        *_measure_loaders(directory / "loaders", threads),
    ]


def latent_ratios(directory: Path, *, threads: int, trajectories: int) -> dict[str, float]:
    """How the cache is built and read, beside what reads the same bytes without our code; less is better.

    Returns:
        `cache build`: share of its time that is not the encoder's. `cache load`: time of a verified load into memory over that of a
        copy out of `np.memmap`. `cache batch`: time of a random batch over that of zarr's reader.
    """
    data = directory / "data"
    _write_trajectories(data, trajectories, frames=41, stored_points=256, stride=2)
    network = {"width": 64, "depth": 1, "heads": 4, "ratio": 2}
    artifact, build = _build(directory / "cache", data, network, tokens=32, dim=4, threads=threads)
    *_, verified = _measure_loads(artifact)
    _, zarr_reader, *_ = _measure_batches(artifact, directory / "layouts")
    return {
        "cache build": build["outside_encoder"],
        "cache load": 1 / verified["of_raw"],
        "cache batch": 1 / zarr_reader["times_mapped_chunks"],
    }


def _write_trajectories(artifact: Path, rows: int, *, frames: int, stored_points: int, stride: int) -> None:
    """A download artifact of travelling waves: what they are does not matter here."""
    x, times = cell_centres(stored_points, (0.0, 1.0)), 0.01 * np.arange(frames)
    for split, count in zip(LEARNT_SPLITS, (rows - rows // 5, rows // 5), strict=True):
        _write_split(artifact / split, count, x, times)
    described = {
        "problem": "burgers1d",
        "variables": "primitive",
        "space_stride": stride,
        "parts": {split: split for split in LEARNT_SPLITS},
    }
    write_json(artifact / DESCRIPTION, {_PROBLEM: described})


def _write_split(directory: Path, rows: int, x: NDArray[np.floating], times: NDArray[np.floating]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with TrajectoryWriter(
        directory / TRAJECTORIES,
        problem="burgers1d",
        rows=rows,
        times=times,
        coordinates=(x,),
        parameters={"nu": 0.01},
        boundary="periodic",
    ) as writer:
        for phase in np.random.default_rng(0).random(rows):
            wave = np.sin(2 * math.pi * (x - 0.3 * times[:, None] + phase))
            writer.append(wave[None, ..., None].astype(np.float32))
    described = {"title": "travelling waves", "version": "benchmark", "rows": list(range(rows))}
    write_json(directory / PART_DESCRIPTION, described)


def _build(
    directory: Path, data: Path, network: Mapping[str, int], *, tokens: int, dim: int, threads: int
) -> tuple[Path, Record]:
    """Build a cache from scratch, with the latent statistics, from files that are read chunk by chunk."""
    sources = sources_of_artifact(data)
    source = sources[_PROBLEM]
    shape = ProblemShape("burgers1d", source.grid, (tokens,), (0,), "periodic")
    description: Description = {
        "kind": "autoencoder",
        "problems": {_PROBLEM: shape.to_json()},
        "latent_dim": dim,
        "encoder": dict(network),
        "decoder": dict(network),
        "statistics": {_PROBLEM: {"field_mean": [0.0], "field_deviation": [0.7]}},
    }
    model = cast(Autoencoder, build_model(description).eval())
    for record in sorted(directory.rglob("*.json")):
        record.unlink()
    started, computed = time.perf_counter(), time.process_time()
    summary = build_cache(
        sources,
        model,
        description,
        output=directory / "output",
        work=directory,
        ranks=Ranks(0, 1, _CPU),
        threads=threads,
        trajectories_per_chunk=_TRAJECTORIES_PER_CHUNK,
        stored=True,
        encoder="random weights",
        dataset="benchmark",
    )
    seconds = time.perf_counter() - started
    rate, per_cpu = source.trajectories / seconds, source.trajectories / (time.process_time() - computed)
    return directory / "output", {
        "measure": "build",
        "what": f"{network['depth']} layers, width {network['width']}, {tokens} tokens, {dim} latent dimensions, "
        f"{source.frames} frames of {source.grid[0]} points (random weights)",
        "trajectories": source.trajectories,
        "statistics_trajectories": summary["latent_statistics"][_PROBLEM]["trajectories"],
        "threads": threads,
        "seconds": seconds,
        "trajectories_per_second": rate,
        "trajectories_per_cpu_second": per_cpu,
        "origin_trajectories_per_second": 1 / ORIGIN_SECONDS,
        "times_origin": rate * ORIGIN_SECONDS,
        "outside_encoder": summary["build"]["outside_encoder"],
    }


def _measure_loads(artifact: Path) -> list[Record]:
    """The whole cache into memory, against a copy out of `np.memmap` of the same bytes."""
    (cache,) = open_caches(artifact).values()
    rows = np.arange(cache.trajectories)
    layouts = [read_layout(artifact / GROUP / _PROBLEM / name) for name in (LATENTS, "u")]

    def raw() -> None:
        for layout in layouts:
            held = np.empty(layout.shape, dtype=np.float16)
            for chunk in range(layout.chunk_count):
                part = layout.rows_of(chunk)
                mapped = np.memmap(layout.file(chunk), dtype="<f2", mode="r", shape=layout.chunk_shape)
                held[part] = mapped[: part.stop - part.start]

    def load(verify: bool) -> None:
        (opened,) = open_caches(artifact, verify=verify).values()
        open_reader(opened, rows, mode="memory", device=_CPU)

    seconds = _in_turn({"raw": raw, "plain": lambda: load(False), "verified": lambda: load(True)})
    rates = {name: cache.bytes / 1e9 / statistics.median(taken) for name, taken in seconds.items()}
    descriptions = {
        "raw": "np.memmap, copied",
        "plain": "full load",
        "verified": "full load, every crc32c checked",
    }
    return [
        {
            "measure": "load",
            "what": descriptions[name],
            "bytes": cache.bytes,
            "gigabytes_per_second": rate,
            "of_raw": statistics.median(a / b for a, b in zip(seconds["raw"], seconds[name], strict=True)),
        }
        for name, rate in rates.items()
    ]


def _measure_batches(artifact: Path, directory: Path) -> list[Record]:
    """Random batches of whole trajectories' latents, from our chunks and from other layouts of the same values."""
    (cache,) = open_caches(artifact, verify=False).values()
    values = cache.latents(np.arange(cache.trajectories))
    single, several_zstd = directory / "single.zarr", directory / "zstd.zarr"
    single_zstd = directory / "single-zstd.zarr"
    _write(single, values, 1, None)
    _write(several_zstd, values, _TRAJECTORIES_PER_CHUNK, ZstdCodec(level=1))
    _write(single_zstd, values, 1, ZstdCodec(level=1))
    stored = artifact / GROUP / _PROBLEM / LATENTS
    paths = {
        "mapped chunks": stored,
        "zarr's reader, the same chunks": stored,
        "zarr, one trajectory per chunk, uncompressed": single,
        "zarr, one trajectory per chunk, zstd": single_zstd,
        f"zarr, chunks of {_TRAJECTORIES_PER_CHUNK}, zstd": several_zstd,
    }
    generator = np.random.default_rng(0)

    def rows() -> NDArray[np.int64]:
        return generator.integers(0, len(values), _BATCH)

    def through_zarr(path: Path) -> Callable[[], Any]:
        array = zarr.open_array(path, mode="r")
        return lambda: array.oindex[rows()]

    readers: dict[str, Callable[[], Any]] = {"mapped chunks": lambda: cache.latents(rows())}
    readers |= {name: through_zarr(path) for name, path in paths.items() if name != "mapped chunks"}
    readers["mapped chunks"]()  # maps them
    seconds = _in_turn(readers)
    size = _BATCH * cache.row_bytes(fields=False)
    best = statistics.median(seconds["mapped chunks"])
    return [
        {
            "measure": "batch",
            "what": name,
            "rows": _BATCH,
            "milliseconds": 1e3 * statistics.median(taken),
            "megabytes_per_second": size / 1e6 / statistics.median(taken),
            "times_mapped_chunks": statistics.median(taken) / best,
            "bytes_of_raw": _bytes_below(paths[name]) / values.nbytes,
        }
        for name, taken in seconds.items()
    ]


def _write(path: Path, values: NDArray[np.float16], chunk: int, codec: ZstdCodec | None) -> None:
    """The values in another layout; the checksum stays, as a fair comparison has one."""
    array = zarr.create_array(
        path,
        shape=values.shape,
        chunks=(min(chunk, len(values)), *values.shape[1:]),
        dtype="float16",
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()] if codec is None else [codec, Crc32cCodec()],
        overwrite=True,
    )
    array[:] = values


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _measure_loaders(directory: Path, threads: int) -> list[Record]:
    """Time for a batch, and its share of a training step of the demonstration's operator."""
    data = directory / "data"
    if not (data / DESCRIPTION).exists():
        _write_trajectories(data, 512, frames=41, stored_points=256, stride=2)
    network = {"width": 64, "depth": 1, "heads": 4, "ratio": 2}
    artifact, _ = _build(directory / "cache", data, network, tokens=32, dim=4, threads=threads)
    (cache,) = open_caches(artifact).values()
    model, _ = load_model(artifact / CODEC_FILE)
    codec = cast(Codec, model)
    rows = cache.rows("train")
    (dataset,) = load_datasets(data, LEARNT_SPLITS).values()
    memory, _ = open_reader(cache, rows, mode="memory", device=_CPU)
    stream, _ = open_reader(cache, rows, mode="stream", device=_CPU)
    problem = LatentProblem(codec.of(_PROBLEM), dataset, _CPU)
    encode = EncodingReader(dataset, dataset.splits["train"], problem.encode, device=_CPU)
    records = []
    for name, reader in (("memory (on a CPU also device)", memory), ("stream", stream), ("encode", encode)):
        source = _source(reader, cache)
        records.append(_waiting(name, source, codec, problem, source))
        if name == "stream":
            with ReadAhead(source, depth=4) as ahead:
                records.append(_waiting("stream, 4 batches read ahead", ahead, codec, problem, source))
    return records


def _source(reader: WindowReader, cache: LatentCache) -> WindowSource:
    windows = ProblemWindows(reader, 3, cache.scalars, cache.known)
    return WindowSource({_PROBLEM: windows}, seed=0, purpose="operator", batch_size=64, device=_CPU)


def _waiting(
    name: str, source: BatchSource, codec: Codec, problem: LatentProblem, plain: WindowSource
) -> Record:
    description = {
        "kind": "operator",
        "problems": {_PROBLEM: problem.codec.shape.to_json()},
        "latent_dim": 4,
        "network": {"kind": "transformer", "width": 64, "depth": 4, "heads": 4, "ratio": 2},
        "linear_path": {},
        "conserve": False,
        "time_steps": [1],
        "average": {},
    }
    model = build_model(description)
    objective = RolloutLoss(codec, {_PROBLEM: problem.evolution()}, rollout_steps=2)
    replica = parallelise(model, objective, Execution(), Ranks(0, 1, _CPU))
    settings = {"kind": "adamw", "learning_rate": 1e-3, "betas": (0.9, 0.95), "weight_decay": 1e-4}
    optimizer = build_optimizer(replica.parameters, replica, **settings)
    average = ExponentialMovingAverage(replica.parameters, 0.99)
    state = TrainingState(replica, optimizer, average, source)
    update = Update(state, torch.Generator(), gradient_clip=1.0)
    waited, taken = [], []
    for step in range(_STEPS):
        started = time.perf_counter()
        batch = source.batch(step)
        waited.append(time.perf_counter() - started)
        training_step(state, batch, update, learning_rate=1e-3)
        taken.append(time.perf_counter() - started)
    wait, whole = statistics.median(waited[2:]), statistics.median(taken[2:])
    return {
        "measure": "loader",
        "what": name,
        "batch_milliseconds": 1e3 * statistics.median(_in_turn({"": lambda: plain.batch(0)})[""]),
        "wait_milliseconds": 1e3 * wait,
        "step_milliseconds": 1e3 * whole,
        "wait_share": wait / whole,
    }


def _in_turn(measured: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each, one after the other, several times round; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(_REPEATS + 1):
        for name, run in measured.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds
