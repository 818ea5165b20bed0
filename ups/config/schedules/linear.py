"""Settings of the schedule `linear`."""

from typing import Literal

from ups.section import Section


class Linear(Section):
    """A straight line."""

    kind: Literal["linear"]
