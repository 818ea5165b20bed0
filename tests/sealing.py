"""Small sealed artifacts, without a stage that would compute them."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ups.artifacts import Artifact, Store
from ups.artifacts.identity import digest_of
from ups.config import Configuration
from ups.config.schema import DATA
from ups.pipeline.plan import derive_parts

FILES = {
    "model.bin": b"\x00\x01weights" * 40,
    "sub/part.bin": b"part",
    "logs/metrics.jsonl": b'{"step": 1}\n',
}


def write_output(store: Store, stage: str, digest: str, files: Mapping[str, bytes] = FILES) -> Path:
    """Do a stage's work: its output, unsealed."""
    output = store.work(stage, digest) / "output"
    for name, content in files.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(content)
    return output


def sealed(
    store: Store,
    stage: str = "download",
    digest: str = "d" * 64,
    files: Mapping[str, bytes] = FILES,
    inputs: Mapping[str, Artifact] | None = None,
    summary: dict | None = None,
    parts: Mapping[str, Artifact] | None = None,
    derivation: dict | None = None,
) -> Artifact:
    """Work and seal."""
    write_output(store, stage, digest, files)
    return store.seal(
        stage,
        digest,
        derivation=derivation or {"stage": stage},
        inputs=dict(inputs or {}),
        summary=summary or {},
        seconds=0.5,
        parts={name: part.reference for name, part in (parts or {}).items()},
    )


def sealed_parts(
    store: Store, configuration: Configuration, content: bytes = b"trajectories"
) -> dict[str, Artifact]:
    """What a download artifact of a configuration consists of; what is there stays, unless it has other content."""
    parts = {}
    for name, splits in derive_parts(configuration, store).items():
        for split, derivation in splits.items():
            digest, files = digest_of(derivation), {"x": split.encode() + content}
            found = store.find(DATA, digest)
            if found is not None and (found.path / "x").read_bytes() != files["x"]:
                shutil.rmtree(found.path)
                found = None
            parts[f"{name}/{split}"] = found or sealed(store, DATA, digest, files, derivation=derivation)
    return parts
