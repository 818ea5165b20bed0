"""Arrays are described as zarr itself sees them, wherever they are nested."""

import json

import numpy as np
import pytest
import zarr
from sealing import sealed
from zarr.codecs import BytesCodec, Crc32cCodec

from ups.artifacts import Artifact, Store
from ups.artifacts.collection import entries
from ups.artifacts.description import describe, describe_arrays, is_chunk
from ups.errors import IntegrityError

A, B, C = ("abc"[i] * 64 for i in range(3))


@pytest.fixture
def cache(tmp_path) -> Artifact:
    """A cache with a group per problem, one array of whole chunks and one in shards."""
    store = Store(tmp_path)
    output = store.work("cache_encode", A) / "output"
    output.mkdir(parents=True)
    root = zarr.open_group(output / "cache.zarr", mode="w", attributes={"problems": ["burgers1d"]})
    attributes = {
        "splits": {"train": list(range(5)), "test": [5, 6]},
        "times": [0.1 * step for step in range(9)],
        "names": ["u"],
        "parameters": {"nu": 0.01},
    }
    group = root.create_group("burgers1d", attributes=attributes)
    latents = group.create_array(
        "latents", shape=(7, 9, 8), chunks=(3, 9, 8), dtype="float16", serializer=BytesCodec(),
        compressors=[Crc32cCodec()], dimension_names=("trajectory", "time", "token"),
    )  # fmt: skip
    latents[:] = np.ones(latents.shape, np.float16)
    fields = group.create_array("fields/u", shape=(8, 9), chunks=(2, 9), shards=(4, 9), dtype="float32")
    fields[:4] = 1.0  # of two shards one is written
    return store.seal("cache_encode", A, derivation={}, inputs={}, summary={}, seconds=1.0)


def test_arrays_and_groups_are_described_as_zarr_sees_them(cache):
    groups, arrays = describe_arrays(cache)
    assert {group["path"] for group in groups} == {
        "cache.zarr", "cache.zarr/burgers1d", "cache.zarr/burgers1d/fields",
    }  # fmt: skip
    group = next(group for group in groups if group["path"] == "cache.zarr/burgers1d")
    assert group["splits"] == {"train": 5, "test": 2}
    assert group["attributes"] == {"times": {"values": 9}, "names": ["u"], "parameters": {"nu": 0.01}}
    assert [array["path"].rpartition("burgers1d/")[2] for array in arrays] == ["fields/u", "latents"]
    for array in arrays:
        seen = zarr.open_array(cache.path / array["path"], mode="r")
        assert tuple(array["shape"]) == seen.shape
        assert tuple(array["chunks"]) == seen.chunks
        assert (tuple(array["shards"]) if array["shards"] else None) == seen.shards
        assert array["dtype"] == str(seen.dtype)
        assert array["bytes"] == sum(
            path.stat().st_size for path in (cache.path / array["path"] / "c").rglob("*") if path.is_file()
        )
    fields, latents = arrays
    assert latents["codecs"] == ["bytes", "crc32c"]
    assert latents["dimensions"] == ["trajectory", "time", "token"]
    assert (latents["chunk_files"], latents["chunk_files_expected"]) == (3, 3)
    assert (fields["chunk_files"], fields["chunk_files_expected"]) == (1, 2)
    chunks = [file.path for file in cache.manifest.files if is_chunk(file, arrays)]
    assert len(chunks) == 4
    assert all("/c/" in path for path in chunks)


def test_an_artifact_without_arrays(tmp_path):
    assert describe_arrays(sealed(Store(tmp_path))) == ([], [])


@pytest.mark.parametrize("content", ["{}", "[]", '{"node_type": "array"}', "{"])
def test_damaged_metadata_are_reported(cache, content):
    path = cache.path / "cache.zarr" / "burgers1d" / "latents" / "zarr.json"
    path.write_text(content)
    with pytest.raises(IntegrityError, match=r"latents/zarr\.json"):
        describe_arrays(cache)


def test_inputs_ancestors_and_dependants_are_told(tmp_path):
    store = Store(tmp_path)
    data = {"name": "burgers1d nu=0.01", "version": "generated"}
    download = sealed(store, "download", A, summary=data)
    operator = sealed(store, "operator", B, inputs={"download": download})
    sealed(store, "evaluate", C, inputs={"operator": operator})

    def current() -> dict:
        known = entries(store)
        entry = next(entry for entry in known if entry.stage == "operator")
        assert entry.manifest is not None
        described = describe(store, entry, entry.manifest, known)
        assert json.loads(json.dumps(described)) == described, "it is JSON"
        return described

    described = current()
    assert described["inputs"]["download"]["state"] == "present and equal"
    assert described["provenance"] == {f"download/{A}": [data]}
    assert described["dependants"] == [f"evaluate/{C}"]
    store.quarantine("download", A, reason="test")
    assert current()["inputs"]["download"]["state"] == "absent"
    assert current()["provenance"] == {}
    sealed(store, "download", C)
    assert current()["inputs"]["download"]["state"] == f"its content is in download/{C}"
    store.remove(store.path("download", C))
    rebuilt = sealed(store, "download", A, {"other.bin": b"other"})
    assert current()["inputs"]["download"]["state"] == "rebuilt with other content"
    (rebuilt.path / "manifest.json").write_text("{")
    assert current()["inputs"]["download"]["state"].startswith("damaged: ")


def test_versions_of_several_problems_are_told_each(tmp_path):
    store = Store(tmp_path)
    summary = {
        "burgers1d": {"title": "Burgers nu=0.01", "version": "generated"},
        "darcy2d": {"version": "doi:10.18419/darus-2986", "frames": 1},
        "pace": 3.0,
    }
    sealed(store, "download", A, summary=summary)
    (entry,) = entries(store)
    assert entry.manifest is not None
    assert describe(store, entry, entry.manifest, [entry])["provenance"] == {
        f"download/{A}": [
            {"name": "Burgers nu=0.01", "version": "generated"},
            {"name": "darcy2d", "version": "doi:10.18419/darus-2986"},
        ]
    }
