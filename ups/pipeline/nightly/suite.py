"""What is measured every night: a fixed suite, and a quick one to try it out.

A suite is known by its digest. Nights of different suites are never compared: whoever changes what is measured begins a new history.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ups.artifacts.identity import digest_of
from ups.config.load import read_yaml
from ups.errors import ConfigurationError
from ups.pipeline.nightly.judge import Measurement

_VERSION = 1
"""To be raised where `ups.benchmarks` measures something else under an old name: code is what is tested, and in no digest."""
_PEER = "fno"
_STEP = "seconds of a step of the operator's training over those of a plain convolution network's in torch"
_GENERATOR = "seconds of solving a batch over those of Burgers' scheme in NumPy"
CACHED_FLOW = "cached flow"
"""Measured by the flow, where a server stands; the library knows of none. It is not measured again where it looks worse, so its
tolerance is wide."""

MEASUREMENTS = (
    Measurement(
        "operator error", "accuracy", 0.02, "relative L2 of validation rollouts after a fixed number of steps"
    ),
    Measurement(
        f"operator error over {_PEER}'s",
        "accuracy",
        0.05,
        "the same for both, after the same seconds of training",
    ),
    Measurement("training step", "training", 0.05, _STEP),
    Measurement("training step, compiled", "training", 0.05, f"{_STEP}; execution.compile: true"),
    Measurement(
        "training step, checkpointed", "training", 0.05, f"{_STEP}; execution.activation_checkpointing: 1"
    ),
    Measurement("cache build", "latents", 0.05, "share of building a latent cache that is not the encoder's"),
    Measurement("cache load", "latents", 0.05, "seconds of a verified load over a copy out of np.memmap"),
    Measurement("cache batch", "latents", 0.05, "seconds of a random batch over those of zarr's own reader"),
    *(
        Measurement(f"generator {case}", "generators", 0.05, _GENERATOR)
        for case in ("burgers1d nu=0.01", "darcy2d beta=1", "compressible1d eta=1e-08")
    ),
    Measurement(
        CACHED_FLOW,
        "orchestration",
        0.2,
        "seconds of a flow whose stages are all sealed over those without Prefect",
    ),
)


@dataclass(frozen=True)
class Suite:
    """What a night does.

    Attributes:
        configuration: file of the run whose data and operator are measured.
        repeats: of everything, in turns, each with a seed of its own.
        sections: what `ups.benchmarks.night` is asked for, by section.
    """

    name: str
    configuration: Path
    repeats: int
    sections: Mapping[str, Mapping[str, Any]]

    @cached_property
    def digest(self) -> str:
        """Of what is measured; 12 digits."""
        measured = {
            "version": _VERSION,
            "configuration": read_yaml(self.configuration),
            "repeats": self.repeats,
            "sections": self.sections,
        }
        return digest_of(measured)[:12]


def measurements_of(names: Iterable[str]) -> list[Measurement]:
    """Those of the names, in the suite's order."""
    wanted = set(names)
    return [measurement for measurement in MEASUREMENTS if measurement.name in wanted]


def require_measurement(name: str, *, where: str) -> None:
    """Refuse what the suite does not measure.

    Raises:
        ConfigurationError: there is no such measurement.
    """
    names = [measurement.name for measurement in MEASUREMENTS]
    if name not in names:
        raise ConfigurationError(f"{name!r} is not measured", where=where, fix=f"one of: {', '.join(names)}")


_CONFIGURATIONS = Path(__file__).parent
_CASES = [m.name.removeprefix("generator ") for m in MEASUREMENTS if m.section == "generators"]
_STEPS: dict[str, dict[str, Any]] = {
    "training step": {},
    "training step, compiled": {"execution.compile": True},
    "training step, checkpointed": {"execution.activation_checkpointing": 1},
}

FULL = Suite(
    "nightly",
    _CONFIGURATIONS / "burgers.yaml",
    repeats=5,
    sections={
        "accuracy": {"peer": _PEER, "seconds": 6.0},
        "training": {"steps": 60, "variants": _STEPS},
        "latents": {"trajectories": 64},
        "generators": {"names": _CASES, "part": 0.125, "frames": 11},
    },
)
QUICK = Suite(
    "quick",
    _CONFIGURATIONS / "quick.yaml",
    repeats=2,
    sections={
        "accuracy": {"peer": _PEER, "seconds": 0.3},
        "training": {"steps": 8, "variants": {"training step": {}}},
        "latents": {"trajectories": 8},
        "generators": {"names": ["burgers1d nu=0.01"], "part": 0.05, "frames": 3},
    },
)
