"""What a flow is asked for: its parameter, and the form of the UI."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from flows.named_files import CONFIGS, NamedFiles
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.errors import ConfigurationError
from ups.pipeline.rebuild import REBUILDABLE, Rebuild

_FILES = NamedFiles(CONFIGS)


class Experiment(BaseModel):
    """A configuration file, and values that replace those of the file."""

    # Rejected: two parameters of the flow, file and overrides. Neither says alone whether the other is right; and that
    # somebody's overrides go with a deployment's own file is not to be seen.
    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Annotated[
        str,
        _FILES.schema,
        Field(description="A file of configs/ by its name, or any by its path, relative to the checkout."),
    ]
    overrides: Annotated[
        dict[str, Any],
        Field(
            description="Values that replace those of the file, by dotted key, for example "
            '{"seed": 1, "training.operator.learning_rate": 3e-4}.',
        ),
    ] = {}
    preflight: Annotated[
        Literal["quick", "dry"],
        Field(
            description="Before the first stage. quick: disk, device, server and limits are checked; dry: every stage that is to be "
            "built is also tried with few trajectories and steps, in about a minute.",
        ),
    ] = "quick"

    rebuild: Annotated[
        list[Annotated[str, WithJsonSchema({"type": "string", "enum": list(REBUILDABLE)})]],
        Field(
            description="Stages to build again although they are sealed. What is behind one is built again if its bytes "
            "change."
        ),
    ] = []
    until: Annotated[
        str | None,
        WithJsonSchema({"anyOf": [{"type": "string", "enum": list(STAGES)}, {"type": "null"}]}),
        Field(description="Last stage to run, of those that it needs; all by default."),
    ] = None

    @property
    def path(self) -> Path:
        """Of the configuration file."""
        return _FILES.path(self.config)

    @property
    def name(self) -> str:
        """For example "burgers_demo seed=3": in a list of runs the one thing that tells them apart."""
        words = [self.path.stem, *(f"{key}={value}" for key, value in self.overrides.items())]
        return " ".join(words + [f"rebuild={','.join(self.rebuild)}"] * bool(self.rebuild))

    @property
    def is_whole(self) -> bool:
        """Whether the chain is run to its results, and so judged by its gates and published."""
        return self.until in {None, "evaluate"}

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        if self.until is not None and self.until not in STAGES:
            raise ValueError(f"until: {self.until!r} is none of {', '.join(STAGES)}")
        try:
            load_configuration(self.path, self.overrides)
            Rebuild.of(self.rebuild, STAGES)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None  # Prefect shows it as the flow run's state
        return self
