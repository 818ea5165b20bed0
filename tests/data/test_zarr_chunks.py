"""Chunk files are zarr chunks: what is written is what zarr reads, and damage has a name."""

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from ups.data.zarr_chunks import ChunkedArray, ChunkLayout, read_layout, write_chunk
from ups.errors import IntegrityError, StorageError

SHAPE, TRAJECTORIES_PER_CHUNK = (10, 3, 4, 2), 4


def values(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float16)


def written(directory: Path, exact: np.ndarray, chunk: int = TRAJECTORIES_PER_CHUNK) -> ChunkedArray:
    layout = ChunkLayout(directory / "array", exact.shape, chunk)
    sums = [write_chunk(layout, i, exact[layout.rows_of(i)]) for i in range(layout.chunk_count)]
    return ChunkedArray(layout, sums, verify=True)


def read(array: ChunkedArray, rows: list[int]) -> np.ndarray:
    out = np.full((len(rows), *array.shape[1:]), np.nan, dtype=np.float16)
    array.read(np.array(rows, dtype=np.int64), out)
    return out


def windows(array: ChunkedArray, rows: list[int], starts: list[int], length: int) -> np.ndarray:
    out = np.empty((len(rows), length, *array.shape[2:]), dtype=np.float16)
    array.read_windows(np.array(rows), np.array(starts), out)
    return out


@pytest.mark.parametrize("shape", [SHAPE, (8, 2, 3), (4, 2), (3, 5, 2, 2, 2)])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_are_byte_for_byte_what_zarr_writes_for_such_an_array(tmp_path, shape, chunk):
    exact = values(shape)
    ours = written(tmp_path, exact, chunk).layout
    array = zarr.create_array(
        tmp_path / "zarr",
        shape=shape,
        chunks=(chunk, *shape[1:]),
        dtype="float16",
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = exact
    theirs = read_layout(tmp_path / "zarr")
    assert (theirs.shape, theirs.trajectories_per_chunk, theirs.chunk_count) == (
        ours.shape,
        ours.trajectories_per_chunk,
        ours.chunk_count,
    )
    for index in range(ours.chunk_count):
        assert ours.file(index).read_bytes() == theirs.file(index).read_bytes()
        assert ours.file(index).stat().st_size == ours.chunk_bytes


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [0],
        [9],
        [0, 1, 2, 3],
        list(range(10)),
        [9, 0, 5, 5, 2],
        [3, 4, 5],
        [0, 9, 1],
        [8, 9, 1, 2, 3],
        [7, 6, 5, 4],
    ],
)
def test_any_rows_in_any_order(tmp_path, rows):
    exact = values()
    np.testing.assert_array_equal(read(written(tmp_path, exact), rows), exact[rows])


def test_windows_begin_where_they_should(tmp_path):
    exact = values()
    rows, starts = [9, 0, 4, 4], [0, 1, 1, 0]
    expected = [exact[row, start : start + 2] for row, start in zip(rows, starts, strict=True)]
    np.testing.assert_array_equal(windows(written(tmp_path, exact), rows, starts, 2), expected)


def test_rows_out_of_range_are_no_padding(tmp_path):
    with pytest.raises(IndexError):
        windows(written(tmp_path, values()), [10], [0], 1)


def test_mapped_values_cannot_be_written_to(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        written(tmp_path, values()).mapped(0)[:] = 0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_chunks_keep_no_files_open(tmp_path):
    array = written(tmp_path, values((200, 2, 2)), chunk=1)
    before = open_files()
    read(array, list(range(200)))
    assert open_files() <= before


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "deleted":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[:-1])
        case "longer":
            path.write_bytes(content + b"\0")


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("how", ["deleted", "empty", "truncated", "longer"])
def test_a_chunk_of_another_size_is_refused_at_open(tmp_path, how, chunk):
    layout = written(tmp_path, values()).layout
    damage(layout.file(chunk), how)
    with pytest.raises(IntegrityError, match=rf"(?s)c/{chunk}/0/0/0: (is missing|has \d+ bytes).*fix: run"):
        ChunkedArray(layout, ["00000000"] * 3, verify=False)


@pytest.mark.parametrize("offset", [0, 57, -1])
def test_a_flipped_bit_is_refused_when_its_chunk_is_first_read(tmp_path, offset):
    exact = values()
    array = written(tmp_path, exact)
    path = array.layout.file(1)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
    np.testing.assert_array_equal(read(array, [0, 9]), exact[[0, 9]])
    with pytest.raises(IntegrityError, match=r"(?s)c/1/0/0/0: has crc32c"):
        read(array, [0, 4])


def test_a_whole_chunk_of_another_array_is_refused(tmp_path):
    """Its own sum is right; it is not the one that was recorded."""
    array, other = written(tmp_path, values()), written(tmp_path / "other", values() * np.float16(2))
    array.layout.file(0).write_bytes(other.layout.file(0).read_bytes())
    with pytest.raises(IntegrityError, match="was written with"):
        read(array, [0])


def test_a_chunk_is_verified_once(tmp_path, monkeypatch):
    calls = []
    exact = google_crc32c.value
    array = written(tmp_path, values())
    monkeypatch.setattr(google_crc32c, "value", lambda data: calls.append(len(data)) or exact(data))
    for _ in range(3):
        read(array, [0, 1, 9])
    assert len(calls) == 2  # chunks 0 and 2


def test_what_is_no_chunk_layout_is_refused(tmp_path):
    for name, changes in {
        "chunked": {"chunks": (2, 1)},
        "float32": {"dtype": "float32"},
        "unsummed": {"compressors": None},
    }.items():
        settings = {"chunks": (2, 3), "dtype": "float16", "compressors": [Crc32cCodec()]} | changes
        zarr.create_array(tmp_path / name, shape=(4, 3), **settings)
        with pytest.raises(IntegrityError, match="does not describe chunks"):
            read_layout(tmp_path / name)
    with pytest.raises(IntegrityError, match="is missing"):
        read_layout(tmp_path / "nowhere")
    (tmp_path / "chunked" / "zarr.json").write_text("{")
    with pytest.raises(IntegrityError, match="is not JSON"):
        read_layout(tmp_path / "chunked")
    (tmp_path / "chunked" / "zarr.json").write_text("{}")
    with pytest.raises(IntegrityError, match="is no metadata"):
        read_layout(tmp_path / "chunked")


def test_values_of_another_shape_or_type_are_a_mistake(tmp_path):
    layout = ChunkLayout(tmp_path, SHAPE, TRAJECTORIES_PER_CHUNK)
    for wrong in (values()[:3], values()[:4].astype(np.float32)):
        with pytest.raises(ValueError, match="holds float16"):
            write_chunk(layout, 0, wrong)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "array").write_text("in the way")
    layout = ChunkLayout(tmp_path / "array", SHAPE, TRAJECTORIES_PER_CHUNK)
    with pytest.raises(StorageError, match=str(tmp_path)):
        write_chunk(layout, 0, values()[:TRAJECTORIES_PER_CHUNK])
