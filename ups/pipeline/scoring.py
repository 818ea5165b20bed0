"""Score a finished run on a file, in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ups.artifacts import Artifact, Manifest, Store
from ups.artifacts.files import read_json, storage_error, write_json
from ups.config.load import load_configuration
from ups.errors import ConfigurationError
from ups.pipeline.device import resolve
from ups.pipeline.launch import launch
from ups.pipeline.outcome import OUTCOME_FILE, classify

_GRACE_SECONDS = 2.0  # there is nothing to save
_NEEDED = ("download", "cache_encode", "operator", "diffusion", "consistency")


def run_artifacts(run: Path) -> dict[str, Artifact]:
    """The artifacts that a run points to, verified.

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
    artifacts = {}
    for stage, pointer in pointers.items():
        path = (run / pointer["path"]).resolve()
        if not (path / "manifest.json").is_file():
            raise ConfigurationError(
                f"its {stage} artifact is gone", where=str(run), fix="build it again with `ups run`"
            )
        artifacts[stage] = Artifact(path, Manifest.read(path / "manifest.json"))
        Store(path.parents[2]).verify(artifacts[stage])
    return artifacts


def score_on_file(
    run: Path,
    file: Path,
    *,
    rows: int,
    problem: str | None = None,
    at_file_resolution: bool = False,
    on_line: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Records of every model of a run on the first trajectories of a file.

    Args:
        problem: of the run, that the file belongs to; None: recognised by the file's layout.
        at_file_resolution: decode and score on the file's own grid, where that is finer than the model's.

    Raises:
        ConfigurationError, IntegrityError: see `run_artifacts`; or the run has no such problem, or the file may
            belong to several.
        DataError: the file is missing, malformed, or does not contain the model's grid and frames.
    """
    artifacts = run_artifacts(run)
    configuration = resolve(load_configuration(run / "config.yaml"))
    try:
        with TemporaryDirectory(prefix="score_file-", dir=run / "logs") as directory:
            work = Path(directory)
            write_json(
                work / "request.json",
                {
                    "configuration": configuration.model_dump(mode="json"),
                    "inputs": {stage: str(artifact.path) for stage, artifact in artifacts.items()},
                    "file": str(file.absolute()),
                    "rows": rows,
                    "problem": problem,
                    "at_file_resolution": at_file_resolution,
                },
            )
            returncode = launch(
                "ups.stages.score_file",
                ["--work", str(work)],
                work=work,
                processes=None,
                log_file=work / "log.txt",
                on_line=on_line,
                environment={"OMP_NUM_THREADS": str(configuration.execution.threads)},
                grace_seconds=_GRACE_SECONDS,
            )
            classify(returncode, work)
            return read_json(work / OUTCOME_FILE)["summary"]["records"]
    except BrokenPipeError:
        raise  # of whoever reads our output
    except OSError as error:
        raise storage_error(error, run) from error
