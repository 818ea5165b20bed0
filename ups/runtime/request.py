"""What a stage process is asked to do, and how it reports that it is done."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts.files import sync_tree, write_json
from ups.config import Configuration


@dataclass(frozen=True)
class Request:
    """One stage to run.

    Attributes:
        work: the stage's directory; files of the artifact go to `work/output`.
        root: where artifacts, runs and downloads are.
        configuration: resolved, no `auto` left.
        inputs: directories of the input artifacts, by stage.
        contents: their content sums.
    """

    work: Path
    root: Path
    stage: str
    digest: str
    configuration: Configuration
    inputs: dict[str, Path]
    contents: dict[str, str]

    @property
    def output(self) -> Path:
        return self.work / "output"

    @classmethod
    def read(cls, work: Path) -> "Request":
        values = json.loads((work / "request.json").read_text())
        return cls(
            work=work,
            root=Path(values["root"]),
            stage=values["stage"],
            digest=values["digest"],
            configuration=Configuration.model_validate(values["configuration"]),
            inputs={stage: Path(path) for stage, path in values["inputs"].items()},
            contents=values["contents"],
        )

    def finish(self, summary: dict[str, Any]) -> None:
        """Say, last of all, that every file of the artifact is written, and on the disk: whoever finds these words
        after a power cut seals what lies there."""
        sync_tree(self.output)
        write_json(self.work / "outcome.json", {"summary": summary})
