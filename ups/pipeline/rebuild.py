"""Stages that are built again though their artifacts are sealed, because somebody asked for it.

The key stays, and so do sealed bytes until there are new ones. Where these are the same, nothing behind is built again
(early cutoff), and the artifact has a new date alone; see `ups.artifacts.store.Store.seal`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ups.artifacts import Artifact
from ups.config.schema import STAGES
from ups.errors import ConfigurationError

REBUILDABLE = tuple(name for name in STAGES if name != "download")
"""Trajectories are artifacts of their own, which other runs share: `ups cache verify` finds those that are damaged."""
ASKED_FOR = "rebuild: asked for"


@dataclass(frozen=True)
class Rebuild:
    """What is asked for, and since when: a stage that was built again since then is not built once more by a retry."""

    stages: tuple[str, ...]
    asked: datetime

    @classmethod
    def of(cls, stages: Iterable[str], chain: Iterable[str], asked: datetime | None = None) -> "Rebuild":
        """Of stages of a chain, from now on if it is not said when it was asked for.

        Raises:
            ConfigurationError: a stage cannot be built again, or is not in the chain.
        """
        possible = [name for name in chain if name in REBUILDABLE]
        chosen = tuple(stages)
        for name in chosen:
            if name not in possible:
                raise ConfigurationError(
                    f"{name!r} is none of the stages that this run could build again",
                    where="rebuild",
                    fix=f"choose among {', '.join(possible)}" if possible else "leave it out",
                )
        return cls(chosen, asked or datetime.now(UTC))

    def wants(self, artifact: Artifact) -> bool:
        """Whether an artifact is to be built again."""
        return (
            artifact.stage in self.stages and datetime.fromisoformat(artifact.manifest.created) < self.asked
        )

    def to_json(self) -> dict[str, Any]:
        return {"stages": list(self.stages), "asked": self.asked.isoformat()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Rebuild":
        return cls(tuple(values["stages"]), datetime.fromisoformat(values["asked"]))


NOTHING = Rebuild((), datetime.min.replace(tzinfo=UTC))
