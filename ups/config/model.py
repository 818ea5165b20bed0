"""All networks of a run, and how symmetries of the equations are used."""

from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ups.config.encoders.grid import GridEncoder
from ups.config.networks import ONE_FOR_ALL, PER_PROBLEM, Correction, OperatorSettings, one_or_several
from ups.config.operators.convolution import ConvolutionOperator
from ups.kinds import choice_of, sections_of
from ups.problems import Symmetry
from ups.section import Count, Name, Positive, Section

OPERATORS = sections_of("ups.config.operators")
ENCODERS = sections_of("ups.config.encoders")
if TYPE_CHECKING:
    Operator = OperatorSettings  # a union of what is found has no type that a checker knows
    Encoder = Correction
else:
    Encoder = choice_of(ENCODERS, default="grid")
    Operator = choice_of(OPERATORS, default="convolution")


class Denoiser(Section):
    """The network of the generative models: convolutions along tokens and along leads in turn."""

    width: Count = Field(default=64, description="channels of the convolutions")
    blocks: Count = Field(default=2, description="residual blocks")
    dilations: tuple[Count, ...] = Field(
        default=(1, 2, 4), min_length=1, description="of the convolutions of a block along tokens"
    )
    leads_per_position: Count = Field(default=8, description="steps of a forecast that make one position")


SymmetryUse = Literal["off", "augment", "average", "exact"]
AVERAGED: tuple[Symmetry, ...] = ("shift", "reflection", "square")
"""Symmetries with a finite number of elements on a grid."""
# Without quotes YAML reads the word off as false.
_Use = Annotated[SymmetryUse, BeforeValidator(lambda use: "off" if use is False else use)]


class SymmetryUses(Section):
    """How the symmetries of a problem's equation are used.

    augment: training draws them at random. average: that too, and a forecast is the mean over all of their elements,
    which costs as many forecasts and tells how sure it is. exact: every trajectory is moved to its own frame and
    back. With the last two the model obeys them whatever its weights.
    """

    shift: _Use = Field(default="off", description="a shift along the periodic axis")
    reflection: _Use = Field(default="off", description="of the axis, with the sign of odd fields")
    galilean: _Use = Field(
        default="off", description="a constant added to the velocity, in a frame that moves with it"
    )
    offset: _Use = Field(
        default="off", description="a constant added to a field whose derivatives alone the equation has"
    )
    scaling: _Use = Field(default="off", description="fields that scale, times one positive number")
    square: _Use = Field(default="off", description="the square's eight rotations and reflections")

    def used(self, *how: SymmetryUse) -> tuple[Symmetry, ...]:
        """The symmetries that are used in one of some ways."""
        return tuple(name for name in SYMMETRIES if getattr(self, name) in how)

    @model_validator(mode="after")
    def _averages_are_finite(self) -> Self:
        for name in self.used("average"):
            if name not in AVERAGED:
                raise ValueError(
                    f"{name}: average needs a finite number of elements, as {', '.join(AVERAGED)} have: write augment or "
                    "exact"
                )
        return self


SYMMETRIES: tuple[Symmetry, ...] = get_args(Symmetry)


def _uses_or_problems(value: object) -> str:
    several = isinstance(value, dict) and any(isinstance(use, dict | SymmetryUses) for use in value.values())
    return PER_PROBLEM if several else ONE_FOR_ALL


class Latent(Section):
    """Shape of the latent state."""

    tokens: Annotated[
        Annotated[Count, Tag(ONE_FOR_ALL)] | Annotated[dict[Name, Count], Tag(PER_PROBLEM)],
        Discriminator(one_or_several),
    ] = Field(
        description="tokens per space axis; must divide the resolution. One number, or one per problem of a mix"
    )
    dim: Count = Field(description="channels per token, the same for all problems of a mix")
    floor: Positive | None = Field(
        default=None,
        description="largest relative L2 that the untrained codec may have on train fields, physical units; null: any",
    )


class Model(Section):
    """All networks of a run."""

    latent: Latent
    encoder: Encoder = Field(default=GridEncoder(), description="what becomes latent tokens")
    decoder: Correction = Correction()
    operator: Operator = Field(
        default=ConvolutionOperator(), description="what advances the latent state by a step"
    )
    denoiser: Denoiser = Denoiser()
    symmetries: Annotated[
        Annotated[SymmetryUses, Tag(ONE_FOR_ALL)] | Annotated[dict[Name, SymmetryUses], Tag(PER_PROBLEM)],
        Discriminator(_uses_or_problems),
    ] = Field(default=SymmetryUses(), description="uses of symmetries. One set, or one per problem of a mix")
