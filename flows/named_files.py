"""Files of a directory of the checkout, by their names, and any others by their paths."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import WithJsonSchema

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class NamedFiles:
    """The YAML files of a directory."""

    directory: Path

    @cached_property
    def names(self) -> list[str]:
        """Without their endings."""
        return sorted(path.stem for path in self.directory.glob("*.yaml"))

    @property
    def schema(self) -> WithJsonSchema:
        """The server knows the schema alone, and refuses by it what the form or the command sends. The form shows a list."""
        return WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "title": "Name", "enum": self.names},
                    {"type": "string", "title": "Path", "pattern": r"/|\.ya?ml$"},
                ]
            }
        )

    def path(self, file: str) -> Path:
        """Of a file that is given by its name or its path."""
        return Path(os.path.relpath(self.directory / f"{file}.yaml")) if file in self.names else Path(file)
