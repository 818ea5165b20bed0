"""What the settings of all trainings have in common."""

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from ups.config.optimizer import OptimizerSettings
from ups.config.optimizers.adamw import AdamW
from ups.config.schedules.cosine import Cosine
from ups.kinds import choice_of, sections_of
from ups.section import Count, Decay, Integer, NonNegative, Positive, Section

OPTIMIZERS = sections_of("ups.config.optimizers")
SCHEDULES = sections_of("ups.config.schedules")
if TYPE_CHECKING:
    Optimizer = OptimizerSettings
    Schedule = Section
else:
    Optimizer, Schedule = choice_of(OPTIMIZERS), choice_of(SCHEDULES)


WarmUp = Annotated[
    Integer,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[\d.]+ ?%$"}]}
    ),
]


class Training(Section):
    """Optimisation of one stage. One loop and one step serve all stages."""

    steps: Count = Field(description="of the optimiser")
    batch_size: Count = Field(description="samples per step over all ranks: fields, pairs or windows")
    accumulation: Count = Field(
        default=1, description="equal parts of a batch that are computed one after the other, for less memory"
    )
    optimizer: Optimizer = Field(default=AdamW(), description="what turns gradients into changes of weights")
    learning_rate: Positive = Field(default=1e-3, description="after the warm-up, where it is largest")
    schedule: Schedule = Field(default=Cosine(), description="how the learning rate falls after the warm-up")
    final_learning_rate: NonNegative = Field(
        default=1e-5,
        description="end of the schedule; learning_rate itself: constant after the warm-up, whatever the schedule",
    )
    warmup_steps: WarmUp = Field(
        default=50, ge=0, description="linear warm-up of the learning rate; '5 %': that part of the steps"
    )
    weight_decay: NonNegative = Field(
        default=1e-4, description="of matrices; times the learning rate, per step"
    )
    betas: tuple[Decay, Decay] = Field(
        default=(0.9, 0.95),
        description="decays per step of Adam's averages of gradients and of their squares",
    )
    gradient_clip: Positive = Field(default=1.0, description="global norm")
    ema_decay: Decay = Field(default=0.999, description="EMA of weights, with warm-up")
    checkpoint_every: Count = Field(default=100, description="steps between checkpoints")
    log_every: Count = Field(default=20, description="steps between progress lines")
    validate_every: Count = Field(default=500, description="steps between validations")
    early_stop: Count | None = Field(
        default=None,
        description="validations without a lower error after which the training ends; null: it takes all its steps",
    )
    publish: Literal["last", "best"] = Field(
        default="last",
        description="averaged weights of the last step, or of the validation with the lowest error",
    )

    @model_validator(mode="before")
    @classmethod
    def _warmup_in_steps(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("warmup_steps"), str):
            found, steps = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", given["warmup_steps"]), given.get("steps")
            if found and isinstance(steps, int):
                return {**given, "warmup_steps": round(steps * float(found[1]) / 100)}
        return given

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps >= self.steps > 0:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be below steps {self.steps}: lower warmup_steps"
            )
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate:g} is above learning_rate "
                f"{self.learning_rate:g}: lower final_learning_rate"
            )
        return self
