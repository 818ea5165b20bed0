"""Settings of the selection `whole`."""

from typing import Literal

from ups.section import Section


class Whole(Section):
    """The candidate of the best score, from its first lead to its last."""

    kind: Literal["whole"]
