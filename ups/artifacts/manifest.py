"""The manifest: what an artifact holds, what it was made of, and its sums."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ups.artifacts.files import canonical_json, json_text, read_json
from ups.errors import IntegrityError

SCHEMA = 3
MANIFEST = "manifest.json"
LOGS = "logs"  # files below this directory say how the work went; they are no part of the content


@dataclass(frozen=True)
class File:
    """One file of an artifact, by its path below the artifact's directory."""

    path: str
    bytes: int
    sha256: str
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    digest: key of the artifact, the sha256 of its derivation; known before it is built.
    inputs: per input stage its digest and content sum; only the latter is part of the derivation.
    derivation: all that the digest was taken of.
    parts: other artifacts that this one consists of, each by stage, digest and content.
    summary: what the stage reports of itself (errors, counts, decisions taken for `auto`).
    """

    stage: str
    digest: str
    derivation: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    files: list[File]
    summary: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    schema: int = SCHEMA

    @property
    def content(self) -> str:
        """sha256 over names and sums of all files that are not logs.

        Two builds with equal content are interchangeable for dependants, though their timings differ.
        """
        relevant = [[f.path, f.sha256] for f in self.files if not f.path.startswith(f"{LOGS}/")]
        return hashlib.sha256(canonical_json(sorted(relevant))).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """All fields, the content sum, and a sum over all of these: a manifest vouches for itself too."""
        values = asdict(self) | {"content": self.content}
        return values | {"sum": _sum(values)}

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read and check a manifest.

        Raises:
            IntegrityError: not JSON, of another schema, or at odds with its own sum.
            StorageError: it cannot be read.
        """
        values = read_json(path)
        try:
            if values["schema"] not in {1, 2, SCHEMA}:
                raise IntegrityError(
                    f"manifest has schema {values['schema']}, expected {SCHEMA}", where=str(path)
                )
            del values["sum"]
            # Byte for byte: a change that JSON does not care about is damage too.
            if path.read_text() != json_text(values | {"sum": _sum(values)}):
                raise IntegrityError("manifest does not match its own sum", where=str(path))
            del values["content"]
            if values["schema"] == 1:
                values["derivation"] = values.pop("recipe")
            files = [File(**file) for file in values.pop("files")]
            return cls(files=files, **values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise IntegrityError(f"manifest is damaged: {error!r}", where=str(path)) from error


def _sum(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values)).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A sealed artifact: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def reference(self) -> dict[str, str]:
        """How a manifest names it."""
        return {"stage": self.stage, "digest": self.digest, "content": self.manifest.content}
