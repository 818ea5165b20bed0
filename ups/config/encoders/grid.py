"""Settings of the encoder `grid`."""

from typing import Literal

from pydantic import Field

from ups.config.networks import Correction


class GridEncoder(Correction):
    """Fields on the regular grid, patch by patch."""

    # Not written out: what runs with it are a function of, and the models that they wrote, are older than this word.
    kind: Literal["grid"] = Field(default="grid", exclude=True)
