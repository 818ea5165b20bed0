"""What is known about one artifact: `ups cache show`.

The arrays of a cache are described from their metadata (zarr v3: one `zarr.json` per group and array), which
is JSON, so that neither zarr nor numpy is loaded. Groups may be nested in any way: every `zarr.json` that the
manifest names is described by its path. Rejected: zarr's own tree, which takes both.
"""

import math
from collections.abc import Iterator
from typing import Any

from ups.artifacts.collection import Entry, inputs_of
from ups.artifacts.files import read_json
from ups.artifacts.manifest import Artifact, File, Manifest
from ups.artifacts.store import Store
from ups.errors import IntegrityError

_METADATA = "zarr.json"
_LONGEST_LIST = 8  # longer ones are shown by their length


def describe(store: Store, entry: Entry, manifest: Manifest, known: list[Entry]) -> dict[str, Any]:
    """Everything about an artifact, as JSON.

    Args:
        manifest: that of `entry`.
        known: all artifacts of the store, to find those made of this one.

    Raises:
        IntegrityError: metadata of an array are damaged.
    """
    groups, arrays = describe_arrays(Artifact(entry.path, manifest))
    inputs = inputs_of(known)
    return entry.to_json() | {
        "content": manifest.content,
        "seconds": manifest.seconds,
        "derivation": manifest.derivation,
        "inputs": {
            name: {**sums, "state": _state_of_input(store, sums.get("stage", name), sums, inputs[entry.name])}
            for name, sums in (manifest.inputs | manifest.parts).items()
        },
        "dependants": [name for name, used in inputs.items() if entry.name in used],
        "provenance": _provenance(entry, known, inputs),
        "summary": manifest.summary,
        "files": [vars(file) for file in manifest.files],
        "groups": groups,
        "arrays": arrays,
    }


def describe_arrays(artifact: Artifact) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The zarr groups and arrays of an artifact, by path; ([], []) where it has none.

    A group: path, attributes (long lists by their length), sizes of its splits. An array: path, shape, chunks
    (of a sharded array: `shards` beside it), dtype, codecs, dimension names, number of chunk files and how many
    there should be, bytes.

    Raises:
        IntegrityError: metadata are damaged.
    """
    groups, arrays = [], []
    for file in artifact.manifest.files:
        parent, _, name = f"/{file.path}".rpartition("/")
        if name != _METADATA:
            continue
        path = parent.removeprefix("/")
        where = artifact.path / file.path
        try:
            values = read_json(where)
            if values["node_type"] == "group":
                groups.append(_group(path, values))
            else:
                arrays.append(_array(path, values, artifact.manifest.files))
        except (FileNotFoundError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"is no metadata of zarr v3: {error!r}", where=str(where)) from error
    return groups, arrays


def is_chunk(file: File, arrays: list[dict[str, Any]]) -> bool:
    """Whether a file is a chunk of one of the arrays."""
    return any(_is_chunk_of(file, array["path"]) for array in arrays)


def _is_chunk_of(file: File, array: str) -> bool:
    return file.path.startswith(f"{array}/") and file.path != f"{array}/{_METADATA}"


def _group(path: str, values: dict[str, Any]) -> dict[str, Any]:
    attributes = values.get("attributes") or {}
    return {
        "path": path,
        "splits": _counted(attributes.get("splits", {})),
        "attributes": {name: _shortened(value) for name, value in attributes.items() if name != "splits"},
    }


def _array(path: str, values: dict[str, Any], files: list[File]) -> dict[str, Any]:
    shape, codecs = values["shape"], values["codecs"]
    outer = values["chunk_grid"]["configuration"]["chunk_shape"]
    sharding = next((codec for codec in codecs if codec["name"] == "sharding_indexed"), None)
    inner = sharding["configuration"] if sharding else {"chunk_shape": outer, "codecs": codecs}
    chunk_files = [file for file in files if _is_chunk_of(file, path)]
    return {
        "path": path,
        "shape": shape,
        "dimensions": values.get("dimension_names"),
        "dtype": values["data_type"],
        "chunks": inner["chunk_shape"],
        "shards": outer if sharding else None,
        "codecs": [codec["name"] for codec in inner["codecs"]],
        "chunk_files": len(chunk_files),
        "chunk_files_expected": math.prod(
            -(-size // chunk) for size, chunk in zip(shape, outer, strict=True)
        ),
        "bytes": sum(file.bytes for file in chunk_files),
    }


def _provenance(
    entry: Entry, known: list[Entry], inputs: dict[str, list[str]]
) -> dict[str, list[dict[str, str]]]:
    """Name and version of the data, per ancestor (or the artifact itself) that reported them."""
    by_name = {other.name: other for other in known}
    found: dict[str, list[dict[str, str]]] = {}
    waiting = [entry.name]
    while waiting:
        other = by_name.get(waiting.pop())
        if other is None or other.manifest is None or other.name in found:
            continue
        found[other.name] = list(_versions("", other.manifest.summary))
        waiting += inputs[other.name]
    return {name: versions for name, versions in found.items() if versions}


def _versions(key: str, summary: Any) -> Iterator[dict[str, str]]:
    """Every mapping of a summary that has a version, by its title or name, else by its key."""
    if not isinstance(summary, dict):
        return
    if isinstance(summary.get("version"), str):
        yield {"name": summary.get("title") or summary.get("name") or key, "version": summary["version"]}
    for inner, value in summary.items():
        yield from _versions(inner, value)


def _counted(value: Any) -> Any:
    """Lists by their lengths, at any depth of mappings."""
    if isinstance(value, dict):
        return {key: _counted(inner) for key, inner in value.items()}
    return len(value)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return (
            [_shortened(inner) for inner in value] if len(value) <= _LONGEST_LIST else {"values": len(value)}
        )
    return value


def _state_of_input(store: Store, stage: str, sums: dict[str, str], present: list[str]) -> str:
    """Whether an input is still there as it was used, by its manifest.

    present: names of artifacts that hold what was used.
    """
    if f"{stage}/{sums['digest']}" in present:
        return "present and equal"
    others = [name for name in present if name.startswith(f"{stage}/")]
    try:
        artifact = store.find(stage, sums["digest"])
    except IntegrityError as error:
        return f"damaged: {error}"
    if others:
        return f"its content is in {others[0]}"
    return "absent" if artifact is None else "rebuilt with other content"
