"""What a stage process is asked to do, and how it reports that it is done."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.config import Configuration


@dataclass(frozen=True)
class Request:
    """One stage to run.

    Attributes:
        work: the stage's directory; files of the artifact go to `work/output`.
        configuration: resolved, no `auto` left.
        inputs: directories of the input artifacts, by stage.
        contents: their content sums.
        code: code identity that the digest was taken of.
    """

    work: Path
    stage: str
    digest: str
    code: str
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
            stage=values["stage"],
            digest=values["digest"],
            code=values["code"],
            configuration=Configuration.model_validate(values["configuration"]),
            inputs={stage: Path(path) for stage, path in values["inputs"].items()},
            contents=values["contents"],
        )

    def finish(self, summary: dict[str, Any]) -> None:
        """Say, last of all, that every file of the artifact is written."""
        temporary = self.work / ".outcome.json"
        with temporary.open("w") as file:
            json.dump({"summary": summary}, file, indent=2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.work / "outcome.json")
