"""What a configuration asks of this machine, and what `device: auto` stands for on it; torch is not imported."""

import ctypes
import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

from ups.config import Configuration
from ups.errors import ConfigurationError, PreflightError

Device = Literal["auto", "cpu", "cuda"]


def resolve(configuration: Configuration) -> Configuration:
    """Replace every `auto` by the choice made for this machine, before digests are taken.

    Raises:
        ConfigurationError: what was asked for needs a GPU, and `device: auto` found none.
    """
    execution = configuration.execution
    device = execution.device
    if device == "auto":
        device = resolve_device("auto", where="execution.device")
    if device == "cpu":
        for key, asked in (
            ("cuda_graphs", execution.cuda_graphs is True),
            ("precision", execution.precision == "tf32"),
        ):
            if asked:
                raise ConfigurationError(
                    f"{str(getattr(execution, key)).lower()} needs a GPU, and execution.device: auto finds none here",
                    where=f"execution.{key}",
                    fix="leave the key out",
                )
    graphs = execution.cuda_graphs
    if graphs == "auto":
        graphs = configuration.graphs_problem(device) is None
    chosen = execution.model_copy(update={"device": device, "cuda_graphs": graphs})
    return configuration.model_copy(update={"execution": chosen})


def require_one_machine(configuration: Configuration, what: str) -> None:
    """Check that what `ups join` cannot find, or knows nothing of, asks for no other machine.

    Raises:
        ConfigurationError: it does.
    """
    if configuration.execution.nodes > 1:
        raise ConfigurationError(
            f"{what} runs on one machine, and this configuration on {configuration.execution.nodes}",
            where="execution.nodes",
            fix="--set execution.nodes=1",
        )


def require_machine(configuration: Configuration) -> None:
    """Check that this machine can do what a resolved configuration asks for.

    Raises:
        PreflightError: CUDA is asked for and there is none, or more threads than there are cores, which would wait
            for each other, or an optimiser whose library is not installed.
    """
    execution, cores = configuration.execution, usable_cores()
    resolve_device(execution.device, where="execution.device")
    if execution.threads > cores:
        raise PreflightError(
            f"{execution.threads} threads for each process, and this process may use {cores} cores",
            where="execution.threads",
            fix=f"set execution.threads to at most {cores}; what was begun with more goes on with "
            "execution.allow_layout_change: true",
        )
    for where, optimizer in configuration.optimizers.items():
        if optimizer.library and importlib.util.find_spec(optimizer.library) is None:
            raise PreflightError(
                f"needs {optimizer.library}, which is not installed",
                where=where,
                fix=f"pip install {optimizer.library}",
            )


def usable_cores() -> int:
    """By the affinity of this process: a scheduler may give it fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def resolve_device(device: Device, *, where: str) -> Literal["cpu", "cuda"]:
    """What a device stands for here.

    Args:
        where: the key or option it was given by, for the message.

    Raises:
        PreflightError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not _cuda_available():
        raise PreflightError(
            "no CUDA device, or this torch is built without CUDA",
            where=where,
            fix=f"set {where} to cpu or auto",
        )
    if device != "auto":
        return device
    return "cuda" if _cuda_available() else "cpu"


@cache
def _cuda_available() -> bool:
    specification = importlib.util.find_spec("torch")
    if specification is None or not specification.submodule_search_locations:
        raise PreflightError("torch is not installed", fix="install the environment with `make setup`")
    text = (Path(specification.submodule_search_locations[0]) / "version.py").read_text()
    built = re.search(r"^cuda[^=]*= *'", text, re.MULTILINE)
    if not built:
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
