"""A trained surrogate by what its user calls it: a run, an exported file, or the name of a model that comes with the library."""

from contextlib import ExitStack
from pathlib import Path

from ups.evaluation.surrogate_file import read_surrogate
from ups.evaluation.trained import Trained
from ups.evaluation.trained_run import TrainedRun
from ups.reference import reference_model


def open_trained(source: Path, device: str) -> Trained:
    """
    Raises:
        ConfigurationError: there is no finished run or file, and no model of this name.
        IntegrityError: what is there is damaged.
    """
    if source.is_dir():
        with ExitStack() as leases:
            return TrainedRun.open(source, leases).load(device)
    return read_surrogate(source if source.exists() else reference_model(str(source)), device)
