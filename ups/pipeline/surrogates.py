"""Forecasts and exports of finished runs, in processes of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.errors import ConfigurationError, DataError
from ups.pipeline.device import Device, resolve_device, usable_cores
from ups.pipeline.run import find_run
from ups.pipeline.tool_process import run_tool
from ups.reference import SURROGATE, reference_model

PROGRAM = ".pt2"
_FORECASTS = (".hdf5", ".h5", ".zarr")

Output = Callable[[str], None]


def find_surrogate(name: Path, root: Path | None) -> Path:
    """The run or the exported file of a name, or the model of this name that comes with the library.

    Raises:
        ConfigurationError: there is none of these.
    """
    path = name.absolute() if name.suffix == SURROGATE else find_run(name, root)
    return path if path.exists() else reference_model(str(name))


def forecast_file(
    source: Path,
    root: Path | None,
    file: Path,
    out: Path,
    *,
    rows: int,
    steps: int | None,
    model: str,
    members: int | None,
    seed: int,
    problem: str | None,
    device: Device,
    on_line: Output,
) -> dict[str, Any]:
    """Forecast from the first frames of a file; see `ups.tools.forecast_file`.

    Raises:
        ConfigurationError: there is no such run, model or problem; or `out` exists, or names no kind of file.
        DataError: the file is missing, malformed, or does not contain the model's grid.
    """
    _refuse(out, _FORECASTS)
    if not file.is_file():
        raise DataError("there is no such file", where=str(file))
    threads = usable_cores()
    return run_tool(
        "ups.tools.forecast_file",
        {
            "source": str(find_surrogate(source, root)),
            "file": str(file.absolute()),
            "out": str(out.absolute()),
            "rows": rows,
            "steps": steps,
            "model": model,
            "members": members,
            "seed": seed,
            "problem": problem,
            "device": resolve_device(device, where="--device"),
            "threads": threads,
        },
        place=out.absolute().parent,
        threads=threads,
        on_line=on_line,
    )


def export_surrogate(
    run: Path, root: Path | None, out: Path, *, problem: str | None, steps: int | None, on_line: Output
) -> dict[str, Any]:
    """Write the networks of a run as one file; see `ups.tools.export_surrogate`.

    Raises:
        ConfigurationError: there is no such run or problem; or `out` exists, or names no kind of file.
    """
    _refuse(out, (SURROGATE, PROGRAM))
    if out.suffix == SURROGATE and (problem is not None or steps is not None):
        raise ConfigurationError(
            "a surrogate is of all problems and any number of steps",
            where="--out",
            fix=f"leave --problem and --steps out, or write {PROGRAM}",
        )
    threads = usable_cores()
    return run_tool(
        "ups.tools.export_surrogate",
        {
            "run": str(find_run(run, root)),
            "out": str(out.absolute()),
            "kind": "torch" if out.suffix == PROGRAM else "surrogate",
            "problem": problem,
            "steps": steps,
        },
        place=out.absolute().parent,
        threads=threads,
        on_line=on_line,
    )


def _refuse(out: Path, kinds: tuple[str, ...]) -> None:
    if out.suffix not in kinds:
        raise ConfigurationError(
            f"has none of the endings {', '.join(kinds)}",
            where=f"--out {out}",
            fix="they say what is written",
        )
    if out.exists():
        raise ConfigurationError("exists", where=f"--out {out}", fix="give another name, or delete it")
    if not out.absolute().parent.is_dir():
        raise ConfigurationError("is in a directory that does not exist", where=f"--out {out}", fix="make it")
