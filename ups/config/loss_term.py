"""What every term of a loss has."""

from pydantic import Field

from ups.section import Positive, Section


class LossTerm(Section):
    """Base of the settings in `ups/config/loss_terms`."""

    weight: Positive = Field(default=0.1, description="of the term, beside 1 for the relative L2")
