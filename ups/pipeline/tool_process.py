"""Work on data that is no stage of the chain: in a process of its own, so that commands stay light."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ups.artifacts.files import OUTCOME_FILE, REQUEST_FILE, read_json, storage_error, write_json
from ups.pipeline.environment import threading_environment
from ups.pipeline.supervise.launch import launch
from ups.pipeline.supervise.outcome import classify

_GRACE_SECONDS = 5.0  # a fetch writes down how far it is; nothing else has anything to save


def run_tool(
    module: str,
    request: dict[str, Any],
    *,
    place: Path,
    threads: int,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run `python -m module --work DIR` and return the summary of its outcome.

    The process reads DIR/request.json and ends by writing DIR/outcome.json, as stages do.

    Args:
        module: of the lower row.
        request: JSON.
        place: directory in which DIR is made for the time of the call.
        threads: OMP_NUM_THREADS of the process.
        on_line: gets what the process prints.
        environment: of the process, beside that of its threads.

    Raises:
        UpsError: the process's own error; see `ups.pipeline.supervise.outcome.classify`.
        StorageError: DIR cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{module.rpartition('.')[2]}-", dir=place) as directory:
            work = Path(directory)
            write_json(work / REQUEST_FILE, request)
            returncode = launch(
                module,
                ["--work", str(work)],
                work=work,
                processes=None,
                log_file=work / "log.txt",
                on_line=on_line,
                environment={**threading_environment(threads), **(environment or {})},
                grace_seconds=_GRACE_SECONDS,
            )
            classify(returncode, work, stage=request.get("stage"))
            return read_json(work / OUTCOME_FILE)["summary"]
    except BrokenPipeError:
        raise  # of whoever reads our output
    except OSError as error:
        raise storage_error(error, place) from error
