"""The flow `sweep`: combinations of some values of a configuration, on all workers."""

from pathlib import Path
from typing import Annotated, Any, Self

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.chain import OF_A_FLOW, begin, given_name
from flows.named_files import CONFIGS, NamedFiles
from tasks.preflight import preflight_of_machine
from tasks.sweep import cancel_members, publish_sweep, require_done, run_members, show_plan
from ups.config.sweep import load_sweep
from ups.errors import ConfigurationError
from ups.pipeline.run import find_root

_FILES = NamedFiles(CONFIGS / "sweeps")


class SweepFile(BaseModel):
    """The file of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[
        str,
        _FILES.schema,
        Field(
            description="A file of configs/sweeps/ by its name, or any by its path, relative to the checkout."
        ),
    ]

    @property
    def path(self) -> Path:
        """Of the file."""
        return _FILES.path(self.file)

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        try:
            load_sweep(self.path)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None  # Prefect shows it as the flow run's state
        return self


def name_of_this_sweep() -> str:
    """The name that somebody gave it, or else that of its file."""
    return given_name() or f"sweep {SweepFile.model_validate(flow_run.get_parameters()['sweep']).path.stem}"


_OPTIONS: dict[str, Any] = OF_A_FLOW | {"on_cancellation": [cancel_members, *OF_A_FLOW["on_cancellation"]]}


@flow(name="sweep", flow_run_name=name_of_this_sweep, **_OPTIONS)
def sweep(sweep: SweepFile) -> str:
    """Train every combination of a sweep's values as a flow run of its own, rank them, and evaluate the best.

    Members run on whichever workers are free, and build what they share once. Cancel ends the members too, each after a
    checkpoint; Retry goes on: what is done is not done again.

    Args:
        sweep: What varies, of which configuration.

    Returns:
        Path of the report.
    """
    begin()
    preflight_of_machine(str(sweep.path))
    file, root = str(sweep.path), str(find_root(None))
    show_plan(file, root)
    run_members(file, root)
    report = publish_sweep(file, root)
    require_done(file, root)
    return report
