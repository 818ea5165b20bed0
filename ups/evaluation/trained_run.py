"""A finished run as its user sees it: its artifacts, what they are used for, and where they come from."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups import __version__
from ups.artifacts.files import read_json
from ups.artifacts.of_run import run_artifacts
from ups.config import Configuration, load_configuration
from ups.evaluation.usage import Usage, usages_of


@dataclass(frozen=True)
class TrainedRun:
    """
    Attributes:
        artifacts: directories by stage.
        usages: by problem.
        provenance: run, commit, library, digests of the artifacts.
    """

    configuration: Configuration
    artifacts: dict[str, Path]
    usages: dict[str, Usage]
    provenance: dict[str, Any]

    @classmethod
    def open(cls, run: Path, leases: ExitStack) -> "TrainedRun":
        """Of a run's directory; its artifacts are verified, and kept until `leases` closes.

        Raises:
            ConfigurationError, IntegrityError: see `run_artifacts`.
        """
        found = run_artifacts(run, leases)
        artifacts = {stage: artifact.path for stage, artifact in found.items()}
        environment = read_json(run / "env.json")
        provenance = {
            "run": run.name,
            "commit": environment["commit"],
            "uncommitted_changes": environment["uncommitted_changes"],
            "library": __version__,
            "artifacts": {stage: artifact.digest for stage, artifact in found.items()},
        }
        configuration = load_configuration(run / "config.yaml")
        return cls(configuration, artifacts, usages_of(artifacts["download"]), provenance)
