"""The artifacts that a finished run points to: what a forecast needs of it."""

from contextlib import ExitStack
from pathlib import Path

from ups.artifacts.files import read_json
from ups.artifacts.manifest import Manifest
from ups.artifacts.store import Artifact, Store
from ups.errors import ConfigurationError

_NEEDED = ("download", "cache_encode", "operator", "diffusion", "consistency")


def run_artifacts(run: Path, leases: ExitStack) -> dict[str, Artifact]:
    """The artifacts of a run that a scoring reads, verified, and kept from `ups cache gc` until `leases` closes.

    Raises:
        ConfigurationError: the directory is no run, or the run has not finished.
        IntegrityError: an artifact is damaged.
    """
    try:
        pointers = read_json(run / "artifacts.json")
    except FileNotFoundError:
        raise ConfigurationError(
            "is not the directory of a run (it has no artifacts.json)",
            where=str(run),
            fix="choose a directory below runs/",
        ) from None
    missing = [stage for stage in _NEEDED if stage not in pointers]
    if missing:
        raise ConfigurationError(
            f"the run has no {', '.join(missing)}", where=str(run), fix="finish it with `ups run`"
        )
    # Those of other stages need not be here: a run may be scored on another machine than its own.
    paths = {stage: (run / pointers[stage]["path"]).resolve() for stage in _NEEDED}
    artifacts, gone = {}, []
    for stage, path in paths.items():
        store = Store(path.parents[2])
        leases.enter_context(store.lease(stage, path.name))
        if (path / "manifest.json").is_file():
            artifacts[stage] = Artifact(path, Manifest.read(path / "manifest.json"))
        else:
            gone.append(stage)
    if gone:
        raise ConfigurationError(
            f"what it made in {', '.join(gone)} is not here",
            where=str(run),
            fix="build it again with `ups run`, or bring these directories from the machine that has them, whole, for "
            f"they are verified before use: {', '.join(str(paths[stage]) for stage in gone)}",
        )
    for artifact in artifacts.values():
        Store(artifact.path.parents[2]).verify(artifact)
    return artifacts
