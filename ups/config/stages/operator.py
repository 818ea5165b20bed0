"""operator: settings of its training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from ups.config.networks import LARGEST_MATRIX, Body
from ups.config.sizes import KeptShape, training_bytes
from ups.config.stage import (
    ContentOf,
    Stage,
    latent_training_settings,
    operator_modules,
    symmetries_used,
    training_modules,
)
from ups.config.stages.autoencoder import codec_weights
from ups.config.training import Training
from ups.kinds import sections_of, some_of
from ups.problems.generated import LEARNT_SPLITS
from ups.section import Count, Integer, NonNegative, Section, Share

LOSS_TERMS = sections_of("ups.config.loss_terms")
if TYPE_CHECKING:
    from ups.config.schema import Configuration

    LossTerms = Section  # a section of what is found has no type that a checker knows
else:
    LossTerms = some_of("LossTerms", LOSS_TERMS)


class JointTraining(Section):
    """The end of the operator's training, in which encoder and decoder move with it, from fields."""

    begin: Share = Field(default=0.8, description="part of the training after which they move")
    encoder_weight: NonNegative = Field(
        default=0.1, description="of the error of decoding an encoding (L_inv_enc)"
    )
    decoder_weight: NonNegative = Field(
        default=0.1, description="of the error of encoding the decoding of a prediction (L_inv_dec)"
    )
    ramp: Share | None = Field(
        default=None,
        description="part of the training over which both weights grow from 0; null: whole at once",
    )
    every: Count = Field(default=1, description="steps from one with these errors to the next")
    queries: Count | None = Field(
        default=None,
        description="grid points at which a decoded encoding is compared, drawn at random; null: all",
    )


class OperatorTraining(Training):
    """Prediction over rollouts, in the norm in which forecasts are scored."""

    rollout_steps: Count = Field(default=2, description="autoregressive steps in the loss, gradients through")
    curriculum: Share | None = Field(
        default=None,
        description="part of the training until all rollout_steps are taken, one more at a time; null: from the start",
    )
    pushforward_steps: Integer = Field(
        default=0,
        ge=0,
        le=10**6,
        description="at most so many steps of the operator's own, without gradient, first",
    )
    start_exponent: NonNegative = Field(
        default=0.0,
        description="windows begin at frame s with a probability in proportion to (1 + s)^-start_exponent: initial "
        "states are unlike all later ones, and every forecast begins with one; 0: evenly",
    )
    state_noise: NonNegative = Field(
        default=0.0, description="deviation of noise on the first state, in its root mean square"
    )
    time_steps: tuple[Count, ...] = Field(
        default=(1,),
        description="time steps that the operator learns, in frames, of which every batch has one; forecasts reach "
        "a frame by few long ones. 1 is among them",
    )
    norm: Literal["physical", "frame"] = Field(
        default="physical",
        description="errors are relative to the norm of the physical field, mean included, or of the field in the "
        "models' frame",
    )
    loss_terms: LossTerms = Field(
        default=LossTerms(),
        description="what is added to the loss, each with its weight; none of them by default",
    )
    joint: JointTraining | None = Field(
        default=None, description="train encoder and decoder too, at the end; null: the codec stays as it is"
    )
    residual_fraction: Share = Field(
        default=0.125,
        description="part of the train trajectories that the operator does not fit, kept for the diffusion model",
    )

    @model_validator(mode="after")
    def _time_steps_reach_every_frame(self) -> Self:
        if 1 not in self.time_steps or len(set(self.time_steps)) < len(self.time_steps):
            raise ValueError(
                f"time_steps {', '.join(map(str, self.time_steps))} must be different and hold 1, without which not "
                "every frame is reached: write for example [1, 2, 4, 8]"
            )
        return self


def _settings(configuration: "Configuration", _: ContentOf) -> dict[str, Any]:
    return latent_training_settings(configuration, "operator", "operator") | {
        "order": configuration.loading.order,
        "largest_matrix": LARGEST_MATRIX,
        "augment": symmetries_used(configuration, "augment"),
        "average": symmetries_used(configuration, "average"),
    }


def _bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape], _: Mapping[str, int]) -> int:
    parameters = network_weights(configuration) + linear_path_weights(configuration, shapes)
    if configuration.training.operator.joint is not None:
        parameters += codec_weights(configuration, shapes)
    return training_bytes(parameters, len(shapes))


def network_weights(configuration: "Configuration") -> int:
    """At most a third above their number: matrices between hidden channels, maps in and out, and an embedding of scalars
    per equation."""
    network = configuration.model.operator
    bodies = {
        Body(len(data.problem.axes), data.usual_boundary == "periodic")
        for data in configuration.problems.values()
    }
    dim, width = configuration.model.latent.dim, getattr(network, "width", 0)
    embeddings = len(configuration.problems) * (width**2 + 40 * width)
    return network.hidden_weights(bodies, dim) + 2 * dim * width + embeddings


def linear_path_weights(configuration: "Configuration", shapes: Mapping[str, KeptShape]) -> int:
    """Numbers of the linear maps, fitted and trained: a plain matrix where there are walls, if it is not too large."""
    dim, total = configuration.model.latent.dim, 0
    for name, shape in shapes.items():
        count = configuration.tokens(name) ** len(shape.grid)
        walled = configuration.problems[name].usual_boundary != "periodic"
        if walled and count * dim > LARGEST_MATRIX:
            continue
        copies = 2 if configuration.linear_path(name) == "trained" else 1
        total += copies * ((count * dim) ** 2 if walled else count * dim**2)
    return total


STAGE = Stage(
    "operator",
    inputs=("download", "cache_encode"),
    settings=_settings,
    bytes=_bytes,
    section=("training.operator", OperatorTraining),
    splits=lambda _: LEARNT_SPLITS,
    found_by_name=lambda c: [*training_modules(c, "operator"), *operator_modules(c)],
)
