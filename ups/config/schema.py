"""The schema of a run: every key, its unit, its default and its limits.

All models are frozen and forbid unknown keys. Which keys count for the digest of which stage is not said
here but written down once, in `ups.pipeline.graph`.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ups.config.data import Data, Mix, ProblemData, Sampling
from ups.config.section import (
    Count,
    Decay,
    Integer,
    Name,
    NonNegative,
    Parallel,
    Positive,
    Real,
    Section,
    Seed,
    Share,
)

STAGES = ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate")
StageName = Literal[
    "download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate"
]
TRAINING_STAGES = ("autoencoder", "operator", "diffusion", "consistency")


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


def _one_or_several(value: object) -> str:
    return PER_PROBLEM if isinstance(value, dict) else ONE_NUMBER


ONE_NUMBER, PER_PROBLEM = "one number", "one per problem"
"""Tags of the two ways to write tokens; validation errors name the tags that they passed."""


class Latent(Section):
    """Shape of the latent state."""

    tokens: Annotated[
        Annotated[Count, Tag(ONE_NUMBER)] | Annotated[dict[Name, Count], Tag(PER_PROBLEM)],
        Discriminator(_one_or_several),
    ] = Field(
        description="tokens per space axis; must divide the resolution. One number, or one per problem of a mix"
    )
    dim: Count = Field(description="channels per token, the same for all problems of a mix")


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
    query_points: Count | None = Field(
        default=None, description="points decoded per sample for that term; null: the grid"
    )
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


LoadingMode = Literal["auto", "device", "memory", "stream", "encode"]


class Loading(Section):
    """How training reads the cache. All modes but `encode` give the same bits."""

    mode: LoadingMode = Field(
        default="auto",
        description="device: all on the training device; memory: in RAM; stream: from the cache's slabs with "
        "read-ahead; encode: no cached latents, raw fields are encoded batch by batch; auto: the first of the "
        "first three that fits",
    )
    read_ahead: Count = Field(default=4, description="batches that `stream` prepares in advance")
    order: Literal["independent", "permutation"] = Field(
        default="independent",
        description="independent: every draw is uniform over all windows; permutation: every window once per epoch",
    )


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
    loading: Loading = Loading()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @property
    def problems(self) -> dict[str, ProblemData]:
        """Data of each problem by its name; a run of one problem calls it by its equation.

        In order of the names: random numbers are dealt out in this order, and a digest does not know another.
        """
        if isinstance(self.data, Mix):
            return dict(sorted(self.data.problems.items()))
        return {self.data.problem.name: self.data}

    @property
    def sampling(self) -> Sampling:
        """How problems take turns; of one problem, every way is the same."""
        return self.data.sampling if isinstance(self.data, Mix) else "balanced"

    def tokens(self, problem: str) -> int:
        """Tokens per space axis of a problem."""
        tokens = self.model.latent.tokens
        return tokens[problem] if isinstance(tokens, dict) else tokens

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        tokens, names = self.model.latent.tokens, list(self.problems)
        if isinstance(tokens, dict) and set(tokens) != set(names):
            raise ValueError(
                f"model.latent.tokens: names {', '.join(sorted(tokens))}, and the problems are "
                f"{', '.join(sorted(names))}: give one number per problem"
            )
        axes = max(len(data.problem.axes) for data in self.problems.values())
        for network in ("encoder", "decoder", "operator", "denoiser"):
            size = getattr(self.model, network)
            if (size.width // size.heads) % (2 * axes):
                raise ValueError(
                    f"model.{network}: width / heads = {size.width // size.heads} is no multiple of {2 * axes}; "
                    f"rotary positions share the pairs of channels among {axes} axes: choose another width or heads"
                )
        for name, data in self.problems.items():
            if problem := self.misfit(name, data.kept_grid, data.kept_frames):
                raise ValueError(problem)
            operator = self.training.operator
            held_out = round(data.counts.train * operator.residual_fraction)
            if not 0 < held_out < data.counts.train:
                raise ValueError(
                    f"training.operator.residual_fraction: {operator.residual_fraction} of "
                    f"{data.counts.train} train trajectories leaves none for the operator or none for the "
                    f"diffusion model: raise the train trajectories of {name} or change the fraction"
                )
        for stage in TRAINING_STAGES:
            batch = getattr(self.training, stage).batch_size
            if batch % self.execution.processes:
                raise ValueError(
                    f"training.{stage}.batch_size: {batch} is not a multiple of execution.processes "
                    f"{self.execution.processes}: every rank takes an equal share"
                )
        sigma, noise = self.training.consistency.second_sigma, self.training.diffusion.noise
        if not noise.sigma_min < sigma < noise.sigma_max:
            raise ValueError(
                f"training.consistency.second_sigma: {sigma:g} is not between sigma_min {noise.sigma_min:g} "
                f"and sigma_max {noise.sigma_max:g} of training.diffusion.noise: choose one between them"
            )
        return self

    def misfit(self, name: str, grid: tuple[int, ...] | None, frames: int | None) -> str | None:
        """Why models of this configuration cannot work on a problem's trajectories; None if they can.

        Args:
            name: of the problem.
            grid: grid points kept per space axis; None as long as only a file knows.
            frames: frames kept, likewise.
        """
        if grid is not None:
            tokens = self.tokens(name)
            for resolution in grid:
                if resolution % tokens:
                    return (
                        f"model.latent.tokens: {tokens} tokens do not divide the {resolution} grid points of "
                        f"{name}: choose one of {', '.join(str(n) for n in _divisors(resolution))}"
                    )
            for stage in ("autoencoder", "operator"):
                points = getattr(self.training, stage).query_points
                if points is not None and points > math.prod(grid):
                    return (
                        f"training.{stage}.query_points: {points} are more than the {math.prod(grid)} grid "
                        f"points of {name}: lower it, or write null for all"
                    )
        if frames is not None and not self.problems[name].problem.is_map:
            # The operator's window holds the state it starts from; the diffusion model also the state after
            # its longest rollout. A map takes its one step, whatever the rollouts of the others.
            for stage, further in (("operator", 1), ("diffusion", 2)):
                steps = getattr(self.training, stage).rollout_steps
                if steps + further > frames:
                    return (
                        f"training.{stage}.rollout_steps: {steps} steps need {steps + further} frames, and a "
                        f"trajectory of {name} has {frames}: lower rollout_steps, or keep more frames"
                    )
        return None


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, min(number, 4096) + 1) if number % n == 0]
