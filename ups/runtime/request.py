"""What a stage process is asked to do, and how it reports that it is done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact
from ups.artifacts.files import OUTCOME_FILE, REQUEST_FILE, sync_tree, write_json
from ups.config import Configuration


@dataclass(frozen=True)
class Request:
    """One stage to run.

    Attributes:
        work: the stage's directory; files of the artifact go to `work/output`.
        root: where artifacts, runs and downloads are.
        configuration: resolved, no `auto` left.
        inputs: directories of the input artifacts, by stage.
        contents: their content sums; of the download stage those of the trajectories that are read.
        parts: of the download stage, by problem and split: what the key of their trajectories is taken of.
    """

    work: Path
    root: Path
    stage: str
    digest: str
    configuration: Configuration
    inputs: dict[str, Path]
    contents: dict[str, Any]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.work / "output"

    @classmethod
    def read(cls, work: Path) -> "Request":
        values = json.loads((work / REQUEST_FILE).read_text())
        return cls(
            work=work,
            root=Path(values["root"]),
            stage=values["stage"],
            digest=values["digest"],
            configuration=Configuration.model_validate(values["configuration"]),
            inputs={stage: Path(path) for stage, path in values["inputs"].items()},
            contents=values["derivation"]["inputs"],
            parts=values["parts"],
        )

    def finish(self, summary: dict[str, Any], parts: Mapping[str, Artifact] | None = None) -> None:
        """Say, last of all, that every file of the artifact is written. They are flushed to the disk first: after a power
        cut, what this file vouches for is sealed.

        parts: other artifacts that this one consists of.
        """
        sync_tree(self.output)
        references = {name: part.reference for name, part in (parts or {}).items()}
        write_json(self.work / OUTCOME_FILE, {"summary": summary, "parts": references})
