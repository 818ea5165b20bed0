"""The schema of a run: every key, its unit, its default and its limits.

All models are frozen and forbid unknown keys. Which keys count for the digest of which stage is not said
here but written down once, in `ups.pipeline.graph`.
"""

import re
import reprlib
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

STAGES = ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate")
StageName = Literal[
    "download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate"
]
TRAINING_STAGES = ("autoencoder", "operator", "diffusion", "consistency")


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # to Python, and so to pydantic, `true` is 1
        raise ValueError(f"must be a number (got {str(value).lower()})")
    return value


def _a_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise ValueError(
            f"must be 1 to 64 letters, digits, _ or -, a letter or digit first (got {reprlib.repr(value)})"
        )
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no path has")
    return value


# Limits far above any use: what is beyond is a slip, and would be found only when memory or patience ends.
Name = Annotated[str, AfterValidator(_a_name)]
Integer = Annotated[int, BeforeValidator(_no_boolean)]
Real = Annotated[float, BeforeValidator(_no_boolean)]
Count = Annotated[Integer, Field(ge=1, le=10**9)]
Seed = Annotated[Integer, Field(ge=0, lt=2**53)]
Parallel = Annotated[Integer, Field(ge=1, le=1024)]
Positive = Annotated[Real, Field(gt=0, le=1e9)]
NonNegative = Annotated[Real, Field(ge=0, le=1e9)]
Share = Annotated[Real, Field(gt=0, lt=1)]
Decay = Annotated[Real, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Splits(Section):
    """Number of trajectories per split. Splits are by trajectory and disjoint."""

    train: Count
    validation: Count
    test: Count


class GeneratedBurgers(Section):
    """Solve 1D Burgers on this machine: PDEBench's equation, scheme and distribution of initial states."""

    source: Literal["generated"]
    equation: Literal["burgers1d"] = "burgers1d"
    nu: Positive = Field(description="PDEBench's nu; the viscosity is nu / pi")
    trajectories: Splits
    resolution: Count = Field(ge=8, description="grid points kept per trajectory")
    solver_resolution: Count = Field(ge=8, description="grid cells of the solver")
    frames: Count = Field(ge=2, description="frames per trajectory, the initial state included")
    frame_interval: Positive = Field(ge=1e-6, le=100, description="time between frames")
    seed: Seed = Field(default=0, description="seed of the initial states")

    @model_validator(mode="after")
    def _solver_grid_is_a_multiple(self) -> Self:
        if self.solver_resolution % self.resolution:
            raise ValueError(
                f"solver_resolution {self.solver_resolution} must be a multiple of resolution "
                f"{self.resolution}: the fields are the solver's, strided"
            )
        return self


class BurgersFile(Section):
    """Read 1D Burgers from a file in PDEBench's layout."""

    source: Literal["file"]
    equation: Literal["burgers1d"] = "burgers1d"
    path: Annotated[str, AfterValidator(_no_nul)] = Field(
        min_length=1, description="HDF5 file; relative paths start at the configuration file"
    )
    trajectories: Splits
    space_stride: Count = Field(default=4, description="keep every n-th grid point")
    time_stride: Count = Field(default=5, description="keep every n-th frame")
    frames: Count | None = Field(default=None, ge=2, description="frames kept after striding; null: all")
    test_first: Count | None = Field(
        default=1000,
        description="test rows come from this many first rows and others never do; null: any row",
    )
    seed: Seed = Field(default=0, description="seed of the choice of rows")

    @model_validator(mode="after")
    def _test_rows_are_reserved(self) -> Self:
        if self.test_first is not None and self.trajectories.test > self.test_first:
            raise ValueError(
                f"trajectories.test {self.trajectories.test} is above test_first {self.test_first}, the rows "
                "that test rows come from: lower it, or raise test_first"
            )
        return self


Data = Annotated[GeneratedBurgers | BurgersFile, Field(discriminator="source")]


class Transformer(Section):
    """Size of one transformer."""

    width: Count = 64
    depth: Count = 2
    heads: Count = 4
    ratio: Count = Field(default=2, description="hidden width of the MLP over `width`")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"heads {self.heads} do not divide width {self.width}: choose width = heads * an even number"
            )
        if (self.width // self.heads) % 2:
            raise ValueError(
                f"width / heads = {self.width // self.heads} is odd, and rotary positions turn pairs of "
                "channels: choose width = heads * an even number"
            )
        return self


class Latent(Section):
    """Shape of the latent state."""

    tokens: Count = Field(description="tokens per space axis; must divide the resolution")
    dim: Count = Field(description="channels per token")


class Model(Section):
    """All networks of a run."""

    latent: Latent
    encoder: Transformer = Transformer()
    decoder: Transformer = Transformer()
    operator: Transformer = Transformer(depth=4)
    denoiser: Transformer = Transformer()


class Execution(Section):
    """How training stages run. These count for the digest: they change the numbers."""

    processes: Parallel = Field(default=1, description="ranks started by torchrun")
    threads: Parallel = Field(default=2, description="threads per process")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: autocast of the forward pass; weights stay fp32"
    )
    compile: bool = Field(
        default=False, description="torch.compile the networks; true means this or an error"
    )


class Training(Section):
    """Optimisation of one stage. One loop and one step serve all stages."""

    steps: Count
    batch_size: Count = Field(description="samples per step over all ranks: fields, pairs or windows")
    learning_rate: Positive = 1e-3
    final_learning_rate: NonNegative = Field(default=1e-5, description="end of the cosine schedule")
    warmup_steps: Integer = Field(default=50, ge=0, description="linear warm-up of the learning rate")
    weight_decay: NonNegative = 1e-4
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    gradient_clip: Positive = Field(default=1.0, description="global norm")
    ema_decay: Decay = Field(default=0.999, description="EMA of weights, with warm-up")
    checkpoint_every: Count = Field(default=100, description="steps between checkpoints")
    log_every: Count = Field(default=20, description="steps between progress lines")
    validate_every: Count = Field(default=500, description="steps between validations")

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be below steps {self.steps}: lower warmup_steps"
            )
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate:g} is above learning_rate "
                f"{self.learning_rate:g}: lower final_learning_rate"
            )
        return self


class AutoencoderTraining(Training):
    """Reconstruction of single fields at random query points."""

    query_points: Count | None = Field(default=None, description="points decoded per sample; null: the grid")


class OperatorTraining(Training):
    """One-step and multi-step prediction in latents, and a decoded-field term."""

    rollout_steps: Count = Field(default=2, description="autoregressive steps in the loss, gradients through")
    field_weight: NonNegative = Field(default=1.0, description="weight of the decoded-field term")
    residual_fraction: Share = Field(
        default=0.125,
        description="part of the train trajectories that the operator does not fit, kept for the diffusion model",
    )


class NoiseLevels(Section):
    """Noise of the residual diffusion, in units of the residual's standard deviation per channel."""

    sigma_min: Positive = 0.02
    sigma_max: Positive = 5.0
    mean_log_sigma: Real = Field(
        default=-0.4, ge=-20, le=20, description="training noise: log-normal, EDM table 1"
    )
    std_log_sigma: Positive = 1.2
    rho: Positive = Field(default=7.0, description="EDM eq. 5")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below sigma_max {self.sigma_max:g}")
        return self


class DiffusionTraining(Training):
    """Denoising of the operator's residual."""

    noise: NoiseLevels = NoiseLevels()
    sampler_steps: Count = Field(default=5, description="Heun steps; 2 * steps - 1 network calls")
    rollout_fraction: Real = Field(
        default=0.5, ge=0, le=1, description="part of the states taken out of the operator's rollouts"
    )
    rollout_steps: Count = Field(default=4, description="longest rollout those states come from")


class ConsistencyTraining(Training):
    """Distillation of the diffusion model into one and two calls."""

    intervals: Count = Field(default=16, ge=2, description="noise levels between sigma_min and sigma_max")
    second_sigma: Positive = Field(default=0.8, description="noise level of the second call")


class Evaluation(Section):
    """Scoring of full rollouts on the test split."""

    members: Count = Field(default=16, ge=2, description="ensemble members of the probabilistic models")
    batch_size: Count = Field(default=256, description="states advanced together")
    seed: Seed = Field(default=0, description="seed of the ensembles' noise")


class Stages(Section):
    """Settings of the training stages."""

    autoencoder: AutoencoderTraining
    operator: OperatorTraining
    diffusion: DiffusionTraining
    consistency: ConsistencyTraining


class CacheEncode(Section):
    """The zarr cache of latents and physical fields."""

    trajectories_per_chunk: Count = Field(default=128, description="trajectories in one slab file")


class Tracking(Section):
    """Mirror of metrics.jsonl. Never part of a digest."""

    wandb: Literal["disabled", "offline", "online"] = "offline"
    project: str = Field(default="ups", min_length=1, description="W&B's project")
    entity: str | None = Field(default=None, min_length=1, description="W&B's user or team; null: your own")


class Configuration(Section):
    """One run."""

    name: Name = Field(description="of the configuration; part of the names of its runs")
    seed: Seed = Field(default=0, description="seed of initial weights, batches and noise")
    data: Data
    model: Model
    execution: Execution = Execution()
    training: Stages
    cache_encode: CacheEncode = CacheEncode()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        resolution = self.data.resolution if self.data.source == "generated" else None
        if problem := self.misfit(resolution, self.data.frames):
            raise ValueError(problem)
        for stage in TRAINING_STAGES:
            batch = getattr(self.training, stage).batch_size
            if batch % self.execution.processes:
                raise ValueError(
                    f"training.{stage}.batch_size: {batch} is not a multiple of execution.processes "
                    f"{self.execution.processes}: every rank takes an equal share"
                )
        operator = self.training.operator
        held_out = round(self.data.trajectories.train * operator.residual_fraction)
        if not 0 < held_out < self.data.trajectories.train:
            raise ValueError(
                f"training.operator.residual_fraction: {operator.residual_fraction} of "
                f"{self.data.trajectories.train} train trajectories leaves none for the operator or none for "
                "the diffusion model: raise data.trajectories.train or change the fraction"
            )
        sigma, noise = self.training.consistency.second_sigma, self.training.diffusion.noise
        if not noise.sigma_min < sigma < noise.sigma_max:
            raise ValueError(
                f"training.consistency.second_sigma: {sigma:g} is not between sigma_min {noise.sigma_min:g} "
                f"and sigma_max {noise.sigma_max:g} of training.diffusion.noise: choose one between them"
            )
        return self

    def misfit(self, resolution: int | None, frames: int | None) -> str | None:
        """Why models of this configuration cannot work on trajectories of a shape; None if they can.

        Args:
            resolution: grid points kept per space axis; None as long as only a file knows.
            frames: frames kept, likewise.
        """
        if resolution is not None:
            tokens, points = self.model.latent.tokens, self.training.autoencoder.query_points
            if resolution % tokens:
                return (
                    f"model.latent.tokens: {tokens} tokens do not divide the {resolution} grid points: "
                    f"choose one of {', '.join(str(n) for n in _divisors(resolution))}"
                )
            if points is not None and points > resolution:
                return (
                    f"training.autoencoder.query_points: {points} are more than the {resolution} grid points: "
                    "lower it, or write null for all"
                )
        if frames is not None:
            # The operator's window holds the state it starts from; the diffusion model also the state after
            # its longest rollout.
            for stage, further in (("operator", 1), ("diffusion", 2)):
                steps = getattr(self.training, stage).rollout_steps
                if steps + further > frames:
                    return (
                        f"training.{stage}.rollout_steps: {steps} steps need {steps + further} frames, and a "
                        f"trajectory has {frames}: lower rollout_steps, or keep more frames"
                    )
        return None


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, min(number, 4096) + 1) if number % n == 0]
