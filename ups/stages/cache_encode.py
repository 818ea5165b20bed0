"""cache_encode: the frozen encoder over all trajectories, into zarr.

Reading, encoding and writing overlap: one thread reads the next chunk while this one is encoded and another
thread writes the last. Ranks take chunks in turn. Every piece of work is recorded when it is done, so a build
that was killed goes on with any number of ranks, and ends with the same bytes.

Latents are standardised by the mean and deviation per channel of the train split's raw latents. They are taken
over all frames of at most 256 train trajectories, evenly spread over the split: over all of them, every
trajectory would be encoded twice, which doubles the build, and 256 trajectories of 201 frames and 32 tokens are
1.6 million samples per channel, from which a mean is known to a thousandth of a deviation even if only every
tenth sample counted as independent. What is standardised by them is stored with them.

Where amplitude scaling is exact, latents must scale as the fields do: their mean is taken as 0 and all channels are
divided by one number.

Of an encoder of points the cache holds the fields that it makes of what it sees: trainings behind it know no more.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import read_json, write_json
from ups.artifacts.identity import digest_of
from ups.data.cache import GROUP
from ups.data.cache_source import CacheSource, sources_of_artifact
from ups.data.cache_writer import ArrayShapes, CacheWriter, write_metadata
from ups.errors import Interrupted
from ups.models.autoencoder import Autoencoder
from ups.models.build import (
    CODEC_FILE,
    MODEL_FILE,
    Description,
    load_model,
    problem_shapes,
    save_model,
)
from ups.models.codec import Codec, ProblemCodec
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.training.frame_encoder import FrameEncoder

log = logging.getLogger(__name__)

STATISTICS_TRAJECTORIES = 256
_STATISTICS_BLOCK = 16  # trajectories summed and recorded at once
_DEAD = 1e-12  # deviation of a latent channel that never moves


def run(request: Request) -> None:
    """Write `cache.zarr` and `codec.safetensors` (the frozen autoencoder with all statistics)."""
    configuration = request.configuration
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        autoencoder, description = load_model(request.inputs["autoencoder"] / MODEL_FILE, ranks.device)
        assert isinstance(autoencoder, Autoencoder)
        summary = build_cache(
            sources_of_artifact(request.inputs["download"]),
            autoencoder,
            description,
            output=request.output,
            work=request.work,
            ranks=ranks,
            threads=configuration.execution.threads,
            trajectories_per_chunk=configuration.cache_encode.trajectories_per_chunk,
            stored=configuration.loading.mode != "encode",
            encoder=request.contents["autoencoder"],
            dataset=digest_of(request.contents["download"]),
        )
        if ranks.is_first:
            request.finish(summary)
        ranks.barrier()


def build_cache(
    sources: Mapping[str, CacheSource],
    autoencoder: Autoencoder,
    description: Description,
    *,
    output: Path,
    work: Path,
    ranks: Ranks,
    threads: int,
    trajectories_per_chunk: int,
    stored: bool,
    encoder: str,
    dataset: str,
) -> dict[str, Any]:
    """Build the cache, going on where an earlier call in `work` was stopped; called by all ranks.

    Args:
        autoencoder: on the device of this rank.
        description: of the autoencoder, with `statistics` of the fields per problem.
        output: gets `cache.zarr` and `codec.safetensors`.
        work: gets the records of what is done, durably.
        trajectories_per_chunk: trajectories in one chunk, which is one file.
        stored: False writes the codec and the attributes alone, for runs that encode on the fly.
        encoder, dataset: content sums of the artifacts the cache is made of.

    Returns:
        What to report, complete on rank 0.

    Raises:
        Interrupted: after SIGTERM, when every rank has finished the chunk at hand.
        DataError: a value does not fit float16, or the source has values that no field can have.
    """
    codec = Codec(autoencoder, problem_shapes(description), description["latent_dim"]).to(ranks.device)
    for name in sources:
        statistics, known = codec.of(name).statistics, description["statistics"][name]
        statistics.field_mean.copy_(torch.tensor(known["field_mean"]))
        statistics.field_deviation.copy_(torch.tensor(known["field_deviation"]))
    shapes = {name: _array_shapes(source, codec.of(name), description) for name, source in sources.items()}
    writer = CacheWriter(output, work, shapes, trajectories_per_chunk=trajectories_per_chunk)
    with FrameEncoder(codec, sources, device=ranks.device, threads=threads) as encode:
        build = _Build(sources, encode, ranks, work)
        counts = _set_latent_statistics(codec, build)
        if stored:
            _write_chunks(writer, build)
    if not ranks.is_first:
        return {}
    save_model(output / CODEC_FILE, codec, description | {"kind": "codec", "codec": encoder})
    about = {
        "encoder": encoder,
        "dataset": dataset,
        "codec": {"file": CODEC_FILE, "sha256": file_checksums(output / CODEC_FILE).sha256},
    }
    attributes = {
        name: source.attributes() | _encoding(codec.of(name), shapes[name])
        for name, source in sources.items()
    }
    summary = {
        "encoder": encoder,
        "dataset": dataset,
        "stored": stored,
        "trajectories": {name: source.trajectories for name, source in sources.items()},
        "latent_statistics": {
            name: attributes[name]["statistics"] | {"trajectories": counts[name]} for name in sources
        },
        "build": build.pace(),
    }
    axes = {name: source.axes for name, source in sources.items()}
    if stored:
        return summary | {"float16_round_trip": writer.finish(attributes, axes, about)}
    write_metadata(
        output / GROUP, {name: values | {"stored": False} for name, values in attributes.items()}, axes, about
    )
    return summary


def _array_shapes(source: CacheSource, codec: ProblemCodec, description: Description) -> ArrayShapes:
    return ArrayShapes(
        trajectories=source.trajectories,
        frames=source.frames,
        latent=(codec.shape.token_grid.token_count, description["latent_dim"]),
        grid=source.grid,
        axes=source.problem.axes,
        names=source.names,
    )


def _encoding(codec: ProblemCodec, shapes: ArrayShapes) -> dict[str, Any]:
    """Attributes that say what the latents mean."""
    statistics = {name: values.tolist() for name, values in codec.statistics.state_dict().items()}
    return {
        "shape": codec.shape.to_json(),
        "latent_shape": list(shapes.latent),
        "statistics": statistics,
    }


def _write_chunks(writer: CacheWriter, build: "_Build") -> None:
    missing = writer.missing()
    done = len(writer.pieces()) - len(missing)
    if done:
        log.info("%d of %d chunks are there", done, len(writer.pieces()))
    build.carry_out(
        [
            _Task(piece.problem, np.arange(piece.rows.start, piece.rows.stop), partial(writer.write, piece))
            for piece in missing
        ],
        "cached",
        done,
    )


def _set_latent_statistics(codec: Codec, build: "_Build") -> dict[str, int]:
    """Give every problem's codec the mean and deviation of its raw latents; the trajectories they are of.

    Blocks of trajectories are summed and recorded one by one, and the blocks added in order: the result is
    the same for any number of ranks.
    """
    records: dict[str, list[Path]] = {}
    tasks, counts = [], {}
    for name, source in build.sources.items():
        rows = spread(source.splits["train"], STATISTICS_TRAJECTORIES)
        blocks = np.array_split(rows, math.ceil(len(rows) / _STATISTICS_BLOCK))
        counts[name] = len(rows)
        records[name] = [build.work / "statistics" / name / f"{i:03d}.json" for i in range(len(blocks))]
        tasks += [
            _Task(name, block, partial(_record_sums, record))
            for block, record in zip(blocks, records[name], strict=True)
            if not record.exists()
        ]
    build.carry_out(tasks, "statistics of", 0)
    for name, blocks in records.items():
        sums = [read_json(record) for record in blocks]
        count = sum(block["count"] for block in sums)
        mean = np.sum([block["sum"] for block in sums], axis=0) / count
        square = np.sum([block["squares"] for block in sums], axis=0) / count
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        # A channel that never moves carries nothing; dividing by its zero deviation would make it NaN.
        deviation[deviation <= _DEAD] = 1.0
        bound = codec.of(name)
        if bound.shape.scales_itself:
            mean, deviation = np.zeros_like(mean), np.full_like(deviation, np.sqrt(square.mean()))
        bound.statistics.latent_mean.copy_(torch.from_numpy(mean))
        bound.statistics.latent_deviation.copy_(torch.from_numpy(deviation))
    return counts


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spread over them, the first and the last included."""
    if len(rows) <= most:
        return rows
    return rows[np.round(np.linspace(0, len(rows) - 1, most)).astype(np.int64)]


def _record_sums(record: Path, latents: NDArray[np.float32], fields: NDArray[np.float32]) -> None:
    flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    values = {"count": len(flat), "sum": flat.sum(axis=0), "squares": np.square(flat).sum(axis=0)}
    write_json(record, {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()})


class _Task(NamedTuple):
    """Trajectories to encode, and what is done with their (latents, fields)."""

    problem: str
    rows: NDArray[np.int64]
    finish: Callable[[NDArray[np.float32], NDArray[np.float32]], None]


class _Build:
    """The overlapped loop over tasks, shared among ranks."""

    def __init__(
        self, sources: Mapping[str, CacheSource], encode: FrameEncoder, ranks: Ranks, work: Path
    ) -> None:
        self.sources, self.encode, self.ranks, self.work = sources, encode, ranks, work
        self._started = time.monotonic()
        self._encoding = 0.0

    def carry_out(self, tasks: Sequence[_Task], activity: str, done: int) -> None:
        """Read, encode and finish all tasks; every rank takes its share and returns when all are done.

        Args:
            tasks: what is left, the same list on all ranks.
            activity: what the progress lines begin with.
            done: tasks that were done before, for the record of an interruption.

        Raises:
            Interrupted: a signal came; the tasks at hand are finished.
        """
        ranks = self.ranks
        ranks.barrier()  # every rank has listed what is left before any changes it
        mine = tasks[ranks.rank :: ranks.world]
        rounds = math.ceil(len(tasks) / ranks.world)
        total = sum(len(task.rows) for task in tasks)
        started = time.monotonic()
        reading = writing = None
        with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
            if mine:
                reading = reader.submit(self._read, mine[0])
            for turn in range(rounds):
                if turn < len(mine):
                    assert reading is not None
                    fields = reading.result()
                    if turn + 1 < len(mine):
                        reading = reader.submit(self._read, mine[turn + 1])
                    latents, fields = self._encode(mine[turn], fields)
                    _wait(writing)  # one chunk at most waits to be written: memory is bounded
                    writing = writer.submit(mine[turn].finish, latents, fields)
                begun = tasks[: (turn + 1) * ranks.world]
                encoded = sum(len(task.rows) for task in begun)
                self._report(activity, encoded, total, encoded / (time.monotonic() - started))
                if ranks.should_stop() and turn + 1 < rounds:
                    _wait(writing)
                    self._interrupt(done + len(begun))
            _wait(writing)
        ranks.barrier()

    def pace(self) -> dict[str, float]:
        """Seconds since the build began (with the statistics, and on this launch), and the share of them that
        this rank did not spend in the encoder.
        """
        elapsed = time.monotonic() - self._started
        return {
            "ranks": self.ranks.world,
            "seconds": elapsed,
            "outside_encoder": 1 - self._encoding / elapsed,
        }

    def _read(self, task: _Task) -> NDArray[np.float32]:
        return self.sources[task.problem].read(task.rows)

    def _encode(
        self, task: _Task, fields: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Latents, and the fields as the encoder sees them."""
        started = time.monotonic()
        encoded = self.encode(task.problem, fields)
        self._encoding += time.monotonic() - started
        return encoded

    def _report(self, activity: str, encoded: int, total: int, rate: float) -> None:
        if self.ranks.is_first:
            share = 100 * self.pace()["outside_encoder"]
            log.info(
                "%s %d/%d trajectories  %.0f/s  outside encoder %.0f %%",
                activity,
                encoded,
                total,
                rate,
                share,
            )

    def _interrupt(self, done: int) -> NoReturn:
        if self.ranks.is_first:
            write_json(self.work / "interrupted.json", {"step": done})
        self.ranks.barrier()
        raise Interrupted(
            f"stopped by a signal after {done} pieces of work, which are recorded",
            where="cache_encode",
            fix="the same command goes on from there",
        )


def _wait(writing: "Future[None] | None") -> None:
    if writing is not None:
        writing.result()
