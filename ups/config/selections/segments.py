"""Settings of the selection `segments`."""

from typing import Literal

from pydantic import Field

from ups.section import Count, Section


class Segments(Section):
    """The best sequence of segments, each of any candidate; what does not fit where two meet counts as residual."""

    kind: Literal["segments"]
    leads: Count = Field(default=5, description="of a segment; the last one may be shorter")
