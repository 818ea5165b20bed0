"""The cache is plain zarr that can be memory-mapped, holds what it was given, and can be killed while written."""

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from ups.data.cache import GROUP, CacheWriter, open_cache
from ups.errors import DataError

ROWS, FRAMES, TOKENS, DIM, GRID, SLAB = 10, 5, 4, 3, 16, 4
NAMES = ("density", "velocity")
SPLITS = {"train": [0, 2, 4, 6, 8, 9], "validation": [1, 3], "test": [5, 7]}


def values(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latents [n, t, k, d] and fields [n, t, x, C] over many decades."""
    generator = np.random.default_rng(seed)
    latents = generator.standard_normal((ROWS, FRAMES, TOKENS, DIM))
    fields = generator.standard_normal((ROWS, FRAMES, GRID, 2)) * 10.0 ** generator.integers(
        -3, 4, (ROWS, 1, 1, 2)
    )
    return latents.astype(np.float32), fields.astype(np.float32)


def writer(directory: Path) -> CacheWriter:
    return CacheWriter(
        directory / "output",
        directory / "progress.json",
        rows=ROWS,
        frames=FRAMES,
        latent_shape=(TOKENS, DIM),
        grid=(GRID,),
        names=NAMES,
        slab=SLAB,
        attributes={"names": list(NAMES), "splits": SPLITS, "scalars": [-3.0, -4.6]},
    )


def write(
    directory: Path, *, until: int | None = None, data: tuple[np.ndarray, np.ndarray] | None = None
) -> CacheWriter:
    """Write the slabs that are missing, up to `until`."""
    latents, fields = values() if data is None else data
    cache = writer(directory)
    for slab in range(cache.done, cache.slabs if until is None else until):
        rows = cache.rows_of(slab)
        cache.write_slab(slab, latents[rows], fields[rows])
    return cache


def contents(directory: Path) -> dict[str, bytes]:
    output = directory / "output"
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def chunk(directory: Path, array: str, slab: int) -> Path:
    trailing = "0/0/0" if array == "latents" else "0/0"
    return directory / "output" / GROUP / array / "c" / str(slab) / trailing


def test_a_round_trip_loses_what_float16_loses_and_the_writer_says_how_much(tmp_path):
    latents, fields = values()
    told = write(tmp_path).round_trip
    cache = open_cache(tmp_path / "output")
    assert cache.latents.dtype == cache.fields.dtype == np.float16
    for exact, stored in ((latents, cache.latents), (fields, cache.fields)):
        error = np.abs(stored.astype(np.float64) - exact)
        assert (error <= np.maximum(2.0**-11 * np.abs(exact), 2.0**-25)).all()
        assert error.max() > 0
    for channel, name in enumerate(NAMES):
        exact, stored = fields[..., channel].astype(np.float64), cache.fields[..., channel]
        report = told[f"fields/{name}"].to_json()
        assert report["largest"] == pytest.approx(np.abs(stored - exact).max(), rel=1e-12)
        relative = np.linalg.norm(stored - exact) / np.linalg.norm(exact)
        assert report["relative_l2"] == pytest.approx(relative, rel=1e-12)
        assert 1e-5 < relative < 2.0**-11


def test_zarr_reads_the_same_without_this_library(tmp_path):
    write(tmp_path)
    cache = open_cache(tmp_path / "output")
    group = zarr.open_group(tmp_path / "output" / GROUP, mode="r")
    np.testing.assert_array_equal(np.asarray(group["latents"]), cache.latents)
    for channel, name in enumerate(NAMES):
        array = group[f"fields/{name}"]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array), cache.fields[..., channel])
        assert array.metadata.to_dict()["dimension_names"] == ("trajectory", "time", "x")
    assert group.attrs["splits"] == SPLITS
    np.testing.assert_array_equal(cache.rows("validation"), [1, 3])


@pytest.mark.parametrize("array", ["latents", "fields/density", "fields/velocity"])
def test_a_chunk_is_its_slab_in_c_order_then_its_crc32c(tmp_path, array):
    write(tmp_path)
    latents, fields = values()
    exact = latents if array == "latents" else fields[..., NAMES.index(array.removeprefix("fields/"))]
    for slab in range(3):
        path = chunk(tmp_path, array, slab)
        rows = exact[slab * SLAB : (slab + 1) * SLAB].astype("<f2")
        mapped = np.memmap(path, dtype="<f2", mode="r", shape=(SLAB, *exact.shape[1:]))
        np.testing.assert_array_equal(mapped[: len(rows)], rows)
        assert not mapped[len(rows) :].any(), "the last slab is filled up with zeros"
        raw = path.read_bytes()
        assert len(raw) == mapped.nbytes + 4
        assert raw[-4:] == google_crc32c.value(raw[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize("offset", [0, 57, -1])
def test_a_flipped_bit_is_noticed_by_any_zarr_reader(tmp_path, offset):
    write(tmp_path)
    path = chunk(tmp_path, "latents", 1)
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="checksum"):
        np.asarray(zarr.open_group(tmp_path / "output" / GROUP, mode="r")["latents"])
    with pytest.raises(ValueError, match="checksum"):
        open_cache(tmp_path / "output")


@pytest.mark.parametrize("value", [65536.0, -1e6, np.inf, np.nan])
def test_what_float16_cannot_hold_is_an_error_that_names_the_place(tmp_path, value):
    latents, fields = values()
    fields[5, 1, 3, 1] = value
    with pytest.raises(DataError, match=r"(?s)does not fit float16.*fix: rescale") as caught:
        write(tmp_path, data=(latents, fields))
    assert "fields/velocity, trajectories slice(4, 8" in str(caught.value)


def test_the_largest_float16_fits(tmp_path):
    latents, fields = values()
    fields[5, 1, 3, 1] = -65504.0
    write(tmp_path, data=(latents, fields))
    assert open_cache(tmp_path / "output").fields[5, 1, 3, 1] == -65504.0


def test_a_chunk_of_zeros_is_written_so_that_absence_means_loss(tmp_path):
    latents, fields = values()
    latents[:], fields[..., 0] = 0, 0
    write(tmp_path, data=(latents, fields))
    for array in ("latents", "fields/density"):
        for slab in range(3):
            raw = chunk(tmp_path, array, slab).read_bytes()
            assert len(raw) > 4
            assert not any(raw[:-4])


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_killed_between_slabs_it_ends_with_the_same_bytes(tmp_path, done):
    write(tmp_path / "reference")
    write(tmp_path / "killed", until=done)
    finished = write(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "reference")
    reference = writer(tmp_path / "reference")
    assert finished.round_trip == reference.round_trip


@pytest.mark.parametrize("slab", [0, 1, 2])
def test_killed_inside_a_slab_it_ends_with_the_same_bytes(tmp_path, slab):
    """The next slab has one whole chunk of other values, one torn one, and one under its temporary name."""
    write(tmp_path / "reference")
    write(tmp_path / "killed", until=slab)
    for array, content in (("latents", None), ("fields/density", b"torn")):
        path = chunk(tmp_path / "killed", array, slab)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chunk(tmp_path / "reference", array, 0).read_bytes() if content is None else content)
    (path.parent / "0.0123456789abcdef.partial").write_bytes(b"torn")
    write(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "reference")


def test_held_out_rows_are_train_rows_that_the_operator_does_not_fit(tmp_path):
    write(tmp_path)
    fitted, held_out = open_cache(tmp_path / "output").fitted_and_held_out(1 / 3)
    assert fitted.tolist() == [0, 2, 4, 6]
    assert held_out.tolist() == [8, 9]
