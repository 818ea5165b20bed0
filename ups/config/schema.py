"""The schema of a run: every key, its unit, its default and its limits.

All models are frozen and forbid unknown keys. Which keys count for the digest of which stage is not said
here but written down once, in `ups.pipeline.graph`. What is chosen by a word (an operator, an optimiser, ...) has its own
settings in a file of that name, see `ups.kinds`.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ups.config.data import Data, Mix, Sampling
from ups.config.networks import (
    ONE_FOR_ALL,
    PER_PROBLEM,
    Correction,
    LinearPath,
    OperatorSettings,
    one_or_several,
)
from ups.config.operators.convolution import ConvolutionOperator
from ups.config.optimizers.adamw import AdamW
from ups.config.schedules.cosine import Cosine
from ups.kinds import choice_of, kind_of, sections_of, some_of
from ups.problems import Symmetry
from ups.problems.generated import FromSinusoids, ProblemData
from ups.section import (
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
DATA = "data"
"""The artifacts of which `download` is made: trajectories of one problem and split, which runs share."""
TRAINING_STAGES = ("autoencoder", "operator", "diffusion", "consistency")


OPERATORS = sections_of("ups.config.operators")
if TYPE_CHECKING:
    Operator = OperatorSettings  # a union of what is found has no type that a checker knows
else:
    Operator = choice_of(OPERATORS, default="convolution")

LARGEST_MATRIX = 4096
"""Rows that the linear path of a problem with walls may have: 64 MiB."""


class Denoiser(Section):
    """The network of the generative models: convolutions along tokens and along leads in turn."""

    width: Count = 64
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

    shift: _Use = "off"
    reflection: _Use = "off"
    galilean: _Use = "off"
    offset: _Use = "off"
    scaling: _Use = "off"
    square: _Use = "off"

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
    encoder: Correction = Correction()
    decoder: Correction = Correction()
    operator: Operator = ConvolutionOperator()
    denoiser: Denoiser = Denoiser()
    symmetries: Annotated[
        Annotated[SymmetryUses, Tag(ONE_FOR_ALL)] | Annotated[dict[Name, SymmetryUses], Tag(PER_PROBLEM)],
        Discriminator(_uses_or_problems),
    ] = Field(default=SymmetryUses(), description="uses of symmetries. One set, or one per problem of a mix")


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
    allow_layout_change: bool = Field(
        default=False,
        description="processes and threads do not count: a training that was begun with others goes on, and not bit for bit",
    )


OPTIMIZERS = sections_of("ups.config.optimizers")
SCHEDULES = sections_of("ups.config.schedules")
LOSS_TERMS = sections_of("ups.config.loss_terms")
if TYPE_CHECKING:
    Optimizer = Section
    Schedule = Section
    LossTerms = Section
else:
    Optimizer, Schedule = choice_of(OPTIMIZERS), choice_of(SCHEDULES)
    LossTerms = some_of("LossTerms", LOSS_TERMS)


class Training(Section):
    """Optimisation of one stage. One loop and one step serve all stages."""

    steps: Count
    batch_size: Count = Field(description="samples per step over all ranks: fields, pairs or windows")
    optimizer: Optimizer = AdamW()
    learning_rate: Positive = 1e-3
    schedule: Schedule = Field(default=Cosine(), description="how the learning rate falls after the warm-up")
    final_learning_rate: NonNegative = Field(default=1e-5, description="end of the schedule")
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


class AutoencoderTraining(Training):
    """Reconstruction of single fields."""

    steps: Integer = Field(
        ge=0,
        le=10**9,
        description="0: the linear codec as it starts, where encoder and decoder have no correction",
    )


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


class NoiseLevels(Section):
    """Noise of the residual diffusion, in units of the residual's deviation. Samplers start from pure noise."""

    sigma_min: Positive = Field(default=0.05, description="last level of the samplers")
    centre: Positive = Field(
        default=3.0,
        description="level around which training noise is log-normal and the samplers' levels are dense",
    )
    std_log_sigma: Positive = Field(default=1.4, description="deviation of the logarithm of training noise")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.centre:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below centre {self.centre:g}")
        return self


class DiffusionTraining(Training):
    """Denoising of the operator's residual."""

    noise: NoiseLevels = NoiseLevels()
    sampler_steps: Count = Field(default=8, ge=2, description="steps; 2 * steps - 1 network calls")


class ConsistencyTraining(Training):
    """Distillation of the diffusion model into one and two calls."""

    intervals: Count = Field(default=8, ge=2, description="intervals of noise levels")
    second_sigma: Positive = Field(default=3.0, description="noise level of the second call")


class Outside(Section):
    """Test trajectories outside the training range: the same initial states, turned into others and solved anew."""

    amplitude: Positive = Field(default=2.0, description="factor on the initial states")
    offset: Real = Field(default=1.0, ge=-1e6, le=1e6, description="added to them")
    parameter: Positive = Field(default=1.0, description="factor on the equation's parameter (nu, beta)")
    trajectories: Count = Field(default=32, description="of the test split, its first")


class Evaluation(Section):
    """Scoring of full rollouts on the test split."""

    members: Count = Field(default=16, ge=2, description="ensemble members of the probabilistic models")
    batch_size: Count = Field(default=256, description="states advanced together")
    seed: Seed = Field(default=0, description="seed of the ensembles' noise")
    outside: Outside | None = Field(
        default=None,
        description="score outside the training range too, in a table of its own; of generated Burgers and advection",
    )


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
    """How the operator's training reads the cache; the models of its residual keep theirs on the device.

    All modes but `encode` give the same bits.
    """

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
    seeds: Count = Field(
        default=1,
        le=100,
        description="runs of the chain, with seed, seed + 1, ...; results are shown with their range over seeds",
    )
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

    def linear_path(self, problem: str) -> LinearPath:
        """What part the best linear map has in the operator of a problem."""
        path = self.model.operator.linear_path
        return path[problem] if isinstance(path, dict) else path

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = list(self.problems)
        model = self.model
        for key, given, one in (
            ("latent.tokens", model.latent.tokens, "number"),
            ("operator.linear_path", model.operator.linear_path, "word"),
        ):
            if isinstance(given, dict) and set(given) != set(names):
                raise ValueError(
                    f"model.{key}: names {', '.join(sorted(given))}, and the problems are "
                    f"{', '.join(sorted(names))}: give one {one} per problem"
                )
        if isinstance(model.symmetries, dict) and not set(model.symmetries) <= set(names):
            raise ValueError(
                f"model.symmetries: names {', '.join(sorted(model.symmetries))}, and the problems are "
                f"{', '.join(sorted(names))}: name only these"
            )
        axes = max(len(data.problem.axes) for data in self.problems.values())
        for network in ("encoder", "decoder", "operator"):
            size = getattr(model, network)
            if hasattr(size, "heads") and (size.width // size.heads) % (2 * axes):
                raise ValueError(
                    f"model.{network}: width / heads = {size.width // size.heads} is no multiple of {2 * axes}; "
                    f"rotary positions share the pairs of channels among {axes} axes: choose another width or heads"
                )
        corrected = [part for part in ("encoder", "decoder") if getattr(model, part).depth]
        if corrected and not self.training.autoencoder.steps:
            raise ValueError(
                f"training.autoencoder.steps: 0 leaves the correction of the {corrected[0]} untrained: raise it, or "
                f"set model.{corrected[0]}.depth: 0"
            )
        if self.evaluation.outside is not None and not any(
            isinstance(data, FromSinusoids) for data in self.problems.values()
        ):
            raise ValueError(
                "evaluation.outside: initial states are turned into others where they were generated, of Burgers or "
                "advection, and no problem here is: write null"
            )
        if self.training.operator.start_exponent and self.loading.order == "permutation":
            raise ValueError(
                "training.operator.start_exponent: loading.order permutation draws every window equally often: set "
                "start_exponent to 0, or order to independent"
            )
        if len(self.training.operator.time_steps) > 1 and self.loading.order == "permutation":
            raise ValueError(
                "training.operator.time_steps: loading.order permutation counts windows of consecutive frames: set "
                "time_steps to [1], or order to independent"
            )
        if all(self.linear_path(name) == "alone" for name in names):
            raise ValueError(
                "model.operator.linear_path: alone leaves the network no problem: write model.operator: {kind: linear}"
            )
        for name, data in self.problems.items():
            if problem := self.misfit(name, data.kept_grid, data.kept_frames):
                raise ValueError(problem)
            if problem := self._symmetry_misfit(name, data, corrected):
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
        if sigma <= noise.sigma_min:
            raise ValueError(
                f"training.consistency.second_sigma: {sigma:g} is not above sigma_min {noise.sigma_min:g} of "
                "training.diffusion.noise: raise it"
            )
        return self

    def symmetries(self, problem: str) -> SymmetryUses:
        """How the symmetries of a problem are used."""
        uses = self.model.symmetries
        return uses.get(problem, SymmetryUses()) if isinstance(uses, dict) else uses

    def _symmetry_misfit(self, name: str, data: ProblemData, corrected: list[str]) -> str | None:
        """Why symmetries or conservation cannot be had; None if they can."""
        equation, boundary, variables = data.problem, data.usual_boundary, data.used_variables()
        available = equation.has(boundary, variables)
        uses = self.symmetries(name)
        for symmetry in SYMMETRIES:
            if getattr(uses, symmetry) != "off" and symmetry not in available:
                having = ", ".join(available) or "none"
                return (
                    f"model.symmetries.{symmetry}: {equation.title} with {boundary} boundary in {variables} variables "
                    f"does not have it (it has {having}): write off"
                )
        halvings = getattr(self.model.operator, "levels", 0)
        if uses.shift == "average" and halvings:
            return (
                f"model.symmetries.shift: average is over shifts within a token, and {kind_of(self.model.operator)} commutes with "
                f"those by {2**halvings} tokens: write augment or off"
            )
        if uses.scaling == "exact" and equation.symmetries.scaled_by is None and corrected:
            return (
                f"model.symmetries.scaling: exact needs a linear codec, and model.{corrected[0]}.depth is not 0: set "
                "it to 0, or write augment"
            )
        declared = equation.fields_in(variables)
        keeps = boundary == "periodic" and not equation.is_map and any(field.conserved for field in declared)
        if self.model.operator.conserve and keeps and self.training.operator.joint is not None:
            return (
                "model.operator.conserve: needs a codec that stays as it is, and training.operator.joint trains it: write "
                "conserve: false, or joint: null"
            )
        if self.model.operator.conserve and keeps and corrected:
            return (
                f"model.operator.conserve: needs a linear codec, and model.{corrected[0]}.depth is not 0: set it to "
                "0, or conserve: false"
            )
        return None

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
            operator = self.model.operator
            for network in ("operator", "denoiser"):
                widest = max(getattr(getattr(self.model, network), "dilations", (0,)))
                if widest >= max(tokens, 2):  # a single token is its own neighbour, or lies beside two walls
                    return (
                        f"model.{network}.dilations: {widest} reaches past the {tokens} tokens of {name} per axis: "
                        f"keep them below {tokens}"
                    )
            size = tokens ** len(grid) * self.model.latent.dim
            walled = self.problems[name].usual_boundary != "periodic"
            if self.linear_path(name) != "none" and walled and size > LARGEST_MATRIX:
                return (
                    f"model.operator.linear_path: with walls it is a matrix, and {size} rows for {name} are more than "
                    f"{LARGEST_MATRIX}: write none, or lower tokens or dim"
                )
            modes = getattr(operator, "modes", 0)
            if modes > tokens:
                return (
                    f"model.operator.modes: {modes} wave numbers are more than the {tokens} tokens of {name} per axis "
                    f"have: keep them to {tokens}"
                )
            halvings = getattr(operator, "levels", 0)
            if tokens % 2**halvings:
                return (
                    f"model.operator.levels: {tokens} tokens of {name} cannot be halved {halvings} times: lower "
                    "levels, or choose a number of tokens with more factors of 2"
                )
        if frames is not None and not self.problems[name].problem.is_map:
            # The operator's window holds the state it starts from. A map takes its one step, whatever the
            # rollouts of the others.
            training = self.training.operator
            longest = max(training.time_steps)
            steps = (training.rollout_steps + training.pushforward_steps) * longest
            if steps + 1 > frames:
                fix = "lower rollout_steps or time_steps" if longest > 1 else "lower rollout_steps"
                return (
                    f"training.operator.rollout_steps: {steps} steps need {steps + 1} frames, and a "
                    f"trajectory of {name} has {frames}: {fix}, or keep more frames"
                )
        return None


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, min(number, 4096) + 1) if number % n == 0]
