"""The build ends with the same bytes however it was interrupted, and its statistics are those of the train split."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached import (
    ROWS,
    TRAJECTORIES_PER_CHUNK,
    autoencoder,
    build_small_cache,
    codec,
    contents,
    datasets,
    encoded,
)
from downloads import write_splits
from tiny import single_rank

from ups.artifacts.files import write_json
from ups.data.cache import GROUP, open_caches
from ups.data.cache_source import CacheSource, source_of_dataset, sources_of_artifact
from ups.data.dataset import DESCRIPTION, load_datasets
from ups.errors import Interrupted
from ups.problems.generated import LEARNT_SPLITS
from ups.stages.cache_encode import STATISTICS_TRAJECTORIES, spread

CHUNKS = sum(-(-rows // TRAJECTORIES_PER_CHUNK) for rows in ROWS.values())

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["torch", "ups.training.loop", "ups.models.build"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a build that nothing happened to."""
    return contents(build_small_cache(tmp_path_factory.mktemp("reference"))[0])


def acting(name: str, source: CacheSource, act) -> CacheSource:
    """A source that calls `act(rows)` before it reads."""

    def read(rows: np.ndarray) -> np.ndarray:
        act(rows)
        return source.read(rows)

    return replace(source, read=read)


def sources(act) -> dict[str, CacheSource]:
    return {name: acting(name, source_of_dataset(data), act) for name, data in datasets().items()}


def _build_until_killed(directory: Path, reads: int) -> None:
    left = [reads]

    def act(rows: np.ndarray) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    build_small_cache(directory, sources=sources(act))


@pytest.mark.parametrize("reads", [*(pytest.param(reads, marks=pytest.mark.slow) for reads in (1, 4, 6)), 8])
def test_killed_at_any_time_it_goes_on_and_ends_with_the_same_bytes(tmp_path, reference, reads):
    process = _processes.Process(target=_build_until_killed, args=(tmp_path, reads))
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "output" / GROUP / "zarr.json").exists(), "an unfinished cache cannot be opened"
    again = []
    artifact, _ = build_small_cache(tmp_path, sources=sources(again.append))
    assert contents(artifact) == reference
    assert len(again) <= 3 + CHUNKS
    if reads > 5:
        assert len(again) < CHUNKS, "what was done is not done again"


def test_a_finished_build_is_not_done_again(tmp_path, reference):
    build_small_cache(tmp_path)
    again = []
    artifact, _ = build_small_cache(tmp_path, sources=sources(again.append))
    assert not again
    assert contents(artifact) == reference


@pytest.mark.parametrize("lost", ["record", "chunk", "part of a chunk"])
def test_a_chunk_counts_only_with_its_record_and_all_its_files(tmp_path, reference, lost):
    artifact, _ = build_small_cache(tmp_path)
    chunk = artifact / GROUP / "map" / "u" / "c" / "1" / "0" / "0" / "0"
    if lost == "record":
        (tmp_path / "chunks" / "map" / "000001.json").unlink()
        chunk.write_bytes(b"of a killed process")
        (chunk.parent / "0.partial").write_bytes(b"of a killed process")
    elif lost == "chunk":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:10])
    again = []
    build_small_cache(tmp_path, sources=sources(again.append))
    assert [rows.tolist() for rows in again] == [[4, 5, 6]]
    assert contents(artifact) == reference


@pytest.mark.parametrize("reads", [1, 5])
def test_sigterm_ends_it_after_the_chunk_at_hand(tmp_path, reference, reads):
    ranks, count = single_rank(), [0]

    def act(rows: np.ndarray) -> None:
        count[0] += 1
        if count[0] == reads:
            ranks.stop_requested = True  # as the handler of `join_ranks` does

    with pytest.raises(Interrupted, match="goes on from there"):
        build_small_cache(tmp_path, sources=sources(act), ranks=ranks)
    assert json.loads((tmp_path / "interrupted.json").read_text())["step"] >= 1
    artifact, _ = build_small_cache(tmp_path)
    assert contents(artifact) == reference


def test_the_number_of_threads_does_not_change_the_bytes(tmp_path, reference):
    assert contents(build_small_cache(tmp_path, threads=3)[0]) == reference


def test_the_length_of_chunks_does_not_change_the_values(tmp_path):
    found = [
        open_caches(build_small_cache(tmp_path / str(chunk), trajectories_per_chunk=chunk)[0])
        for chunk in (1, 3, 100)
    ]
    for name, cache in found[0].items():
        rows = np.arange(cache.trajectories)
        for other in found[1:]:
            np.testing.assert_array_equal(cache.fields(rows), other[name].fields(rows))
            np.testing.assert_allclose(cache.latents(rows), other[name].latents(rows), atol=2e-3)


def test_trajectories_read_chunk_by_chunk_from_files_are_those_of_the_datasets(tmp_path):
    """All problems, through a download artifact in PDEBench's layout, strided in space."""
    described = {}
    for name, data in datasets().items():
        stored = data.fields if not data.problem.is_map else data.fields[:, 1:]
        # Positive as the equations want it, and on a grid of which every second point is kept.
        fine = np.abs(stored)
        for axis in range(2, fine.ndim - 1):
            fine = np.repeat(fine, 2, axis=axis)
        centres = [
            lower + (np.arange(n) + 0.5) * (upper - lower) / n
            for n, (lower, upper) in zip(fine.shape[2:-1], data.problem.domain, strict=True)
        ]
        parts = write_splits(
            tmp_path / "download",
            name,
            fine,
            {"train": [0, 2, 4], "validation": [3]},
            numbers=data.rows.tolist(),
            title=data.title,
            version=data.version,
            written={
                "times": None if data.problem.is_map else data.times,
                "coordinates": centres,
                "problem": data.problem.name,
                "parameters": data.parameters,
                "boundary": data.boundary,
            },
        )
        described[name] = {
            "problem": data.problem.name,
            "variables": "primitive",
            "space_stride": 2,
            "parts": parts,
        }
    write_json(tmp_path / "download" / DESCRIPTION, described)
    loaded = load_datasets(tmp_path / "download", LEARNT_SPLITS)
    from_files, _ = build_small_cache(
        tmp_path / "files", loaded, sources=sources_of_artifact(tmp_path / "download")
    )
    in_memory, _ = build_small_cache(tmp_path / "memory", loaded)
    assert contents(from_files) == contents(in_memory)
    for name, cache in open_caches(from_files).items():
        assert cache.attributes["rows"] == [datasets()[name].rows[row] for row in (0, 2, 4, 3)]
        assert cache.rows("validation").tolist() == [3]


def test_latent_statistics_are_those_of_raw_latents_of_the_train_split(tmp_path):
    data = datasets()
    artifact, summary = build_small_cache(tmp_path, data)
    for name in data:
        of = codec(artifact).of(name)
        raw = encoded(codec(artifact), name, data[name])[data[name].splits["train"]].double()
        raw = raw * of.statistics.latent_deviation + of.statistics.latent_mean
        flat = raw.flatten(0, -2)
        torch.testing.assert_close(of.statistics.latent_mean.double(), flat.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            of.statistics.latent_deviation.double(), flat.std(0, correction=0), rtol=1e-5, atol=1e-5
        )
        assert summary["latent_statistics"][name]["trajectories"] == len(data[name].splits["train"])


def test_a_dead_channel_stays_finite(tmp_path, monkeypatch):
    data = datasets("waves")
    model, _ = autoencoder(data)
    with torch.no_grad():
        assert model.encoder.correction is not None
        model.encoder.correction.output.weight[2] = 0
        model.encoder.get_parameter("linear.problem_waves.weight")[2] = 0
    monkeypatch.setattr("cached.autoencoder", lambda of, seed=0: (model, autoencoder(of)[1]))
    artifact, _ = build_small_cache(tmp_path, data)
    statistics = codec(artifact).of("waves").statistics
    assert statistics.latent_deviation[2] == 1
    latents = open_caches(artifact)["waves"].latents(np.arange(11))
    assert not latents[..., 2].any()
    assert np.isfinite(latents).all()


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000, 9000])
def test_statistics_take_at_most_so_many_trajectories_evenly_spread(count):
    rows = np.arange(count) * 3 + 7
    taken = spread(rows, STATISTICS_TRAJECTORIES)
    assert len(taken) == len(np.unique(taken)) == min(count, STATISTICS_TRAJECTORIES)
    assert (taken[0], taken[-1]) == (rows[0], rows[-1])
    assert np.isin(taken, rows).all()
    gaps = np.diff(taken)
    assert not len(gaps) or gaps.max() - gaps.min() <= 3
