"""Settings of the schedule `cosine`."""

from typing import Literal

from ups.section import Section


class Cosine(Section):
    """Half a cosine."""

    kind: Literal["cosine"] = "cosine"
