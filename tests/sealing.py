"""Small sealed artifacts, without a stage that would compute them."""

from collections.abc import Mapping
from pathlib import Path

from ups.artifacts import Artifact, Store

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
) -> Artifact:
    """Work and seal."""
    write_output(store, stage, digest, files)
    return store.seal(
        stage,
        digest,
        derivation={"stage": stage},
        inputs=dict(inputs or {}),
        summary=summary or {},
        seconds=0.5,
    )
