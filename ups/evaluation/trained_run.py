"""A finished run as its user sees it: its artifacts, what they are used for, and where they come from."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ups import __version__
from ups.artifacts.files import read_json
from ups.artifacts.of_run import run_artifacts
from ups.artifacts.store import Artifact
from ups.config import Configuration, load_configuration
from ups.config.conditioning import FITTED_FILE
from ups.evaluation.conditioning import Fit
from ups.evaluation.evaluation_set import train_means
from ups.evaluation.surrogate import load_surrogate
from ups.evaluation.trained import Trained
from ups.evaluation.usage import usages_of

_RESULTS = "metrics.json"


@dataclass(frozen=True)
class TrainedRun:
    """
    Attributes:
        artifacts: by stage.
    """

    directory: Path
    configuration: Configuration
    artifacts: dict[str, Artifact]

    @classmethod
    def open(cls, run: Path, leases: ExitStack) -> "TrainedRun":
        """Of a run's directory; its artifacts are verified, and kept until `leases` closes.

        Raises:
            ConfigurationError, IntegrityError: see `run_artifacts`.
        """
        artifacts = run_artifacts(run, leases)
        return cls(run, load_configuration(run / "config.yaml"), artifacts)

    @property
    def paths(self) -> dict[str, Path]:
        """Directories of the artifacts."""
        return {stage: artifact.path for stage, artifact in self.artifacts.items()}

    def load(self, device: str) -> Trained:
        """Its networks on a device, and what their use needs.

        Raises:
            IntegrityError: a network's file is damaged.
        """
        configuration, download = self.configuration, self.artifacts["download"].path
        execution = configuration.execution.model_copy(update={"device": device})
        surrogate = load_surrogate(self.paths, configuration.model_copy(update={"execution": execution}))
        usages = usages_of(download, surrogate.codec.shapes)
        results, environment = self.directory / _RESULTS, read_json(self.directory / "env.json")
        fits, digests = {}, {stage: artifact.digest for stage, artifact in self.artifacts.items()}
        if (self.directory / FITTED_FILE).exists():  # none where the run was not evaluated
            fits = read_json(self.directory / FITTED_FILE)
            digests["evaluate"] = read_json(self.directory / "artifacts.json")["evaluate"]["digest"]
        return Trained(
            surrogate,
            usages,
            train_means(download, [name for name, usage in usages.items() if usage.problem.is_map]),
            configuration.evaluation,
            configuration.seed,
            {name: Fit.from_json(values, device) for name, values in fits.items()},
            read_json(results) if results.exists() else [],
            {
                "run": self.directory.name,
                "commit": environment["commit"],
                "uncommitted_changes": environment["uncommitted_changes"],
                "library": __version__,
                "artifacts": digests,
            },
        )
