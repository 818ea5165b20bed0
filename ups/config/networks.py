"""What the sections of networks have in common."""

from abc import abstractmethod
from collections.abc import Collection
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ups.section import Count, Integer, Name, Section


class Transformer(Section):
    """Size of one transformer."""

    width: Count = Field(default=64, description="channels of a token inside the network")
    depth: Count = Field(default=2, description="blocks")
    heads: Count = Field(default=4, description="of the attention; width / heads must be an even number")
    ratio: Count = Field(default=2, description="hidden width of the MLP over `width`")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        require_heads(self.width, self.heads)
        return self


def require_heads(width: int, heads: int) -> None:
    """Attention heads share the width evenly, in pairs of channels."""
    if width % heads:
        raise ValueError(f"heads {heads} do not divide width {width}: choose width = heads * an even number")
    if (width // heads) % 2:
        raise ValueError(
            f"width / heads = {width // heads} is odd, and rotary positions turn pairs of "
            "channels: choose width = heads * an even number"
        )


class AttentionSettings(Section):
    """Which tokens and channels an operator's attention sees at once."""

    window: Integer | None = Field(
        default=None,
        ge=2,
        le=10**9,
        multiple_of=2,
        description="tokens per axis that attend to each other, in every other block shifted by half a window; null: all",
    )
    channel_separated: bool = Field(
        default=False, description="every head sees its own width / heads channels alone, and not all"
    )


class Correction(Transformer):
    """The transformer's part of the encoder or decoder, added to its linear map; zero at first."""

    depth: Integer = Field(default=0, ge=0, le=1000, description="blocks; 0: the linear map alone")


ONE_FOR_ALL, PER_PROBLEM = "one for all", "one per problem"
"""Tags of the ways to write what may differ between problems; validation errors name the tags they passed."""


def one_or_several(value: object) -> str:
    return PER_PROBLEM if isinstance(value, dict) else ONE_FOR_ALL


LinearPath = Literal["none", "trained", "frozen", "alone", "exact"]

LARGEST_MATRIX = 4096
"""Rows that the linear path of a problem with walls may have: 64 MiB."""


class Body(NamedTuple):
    """What layers are made for: so many space axes, with walls or without."""

    axes: int
    periodic: bool


class OperatorSettings(Section):
    """What every operator has beside its network. Each kind is in its own file of `ups/config/operators`."""

    linear_path: Annotated[
        Annotated[LinearPath, Tag(ONE_FOR_ALL)] | Annotated[dict[Name, LinearPath], Tag(PER_PROBLEM)],
        Discriminator(one_or_several),
    ] = Field(
        default="none",
        description="what stands beside the network. trained, frozen, alone: the best linear map of a step, fitted by least "
        "squares on the train split, trained on with the network, as it is, or without a network; exact: the equation's own "
        "diffusion in its place, for a periodic axis and a linear codec. One word, or one per problem of a mix",
    )
    conserve: Literal["fluxes", True, False] = Field(
        default=True,
        description="increments leave the mean of conserved fields as it is, or are differences of fluxes between "
        "neighbouring points; both need a linear decoder",
    )

    @abstractmethod
    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        """About how many weights lie between the network's maps in and out, so that a full disk refuses beforehand.

        Args:
            bodies: the different ones of the run's problems.
            dim: channels per token.
        """


def block_weights(size: Transformer, *, channel_separated: bool = False) -> int:
    """Weights of blocks: four projections of attention, two of the MLP, norms and biases."""
    seen = size.width // (size.heads if channel_separated else 1)
    return size.depth * size.width * (3 * seen + size.width * (1 + 2 * size.ratio) + 12 + size.ratio)


def axes_of(bodies: Collection[Body]) -> set[int]:
    """Numbers of axes, whose problems share layers."""
    return {body.axes for body in bodies}
