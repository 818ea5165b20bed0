"""The schema of a run: every key, its unit, its default and its limits.

All models are frozen and forbid unknown keys. Here the sections meet, with the rules between them. The settings of a stage,
and which keys its result is a function of, are in its file of `ups/config/stages`; those of what is chosen by a word (an
operator, an optimiser, ...) in a file of that name, see `ups.kinds`.
"""

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, create_model, model_validator

from ups.config.data import Data, Mix, Sampling
from ups.config.encoders.points import PointEncoder
from ups.config.gates import Gates
from ups.config.model import SYMMETRIES, Model, SymmetryUses
from ups.config.networks import LARGEST_MATRIX, LinearPath
from ups.config.optimizer import OptimizerSettings
from ups.config.stage import Stage, all_stages
from ups.config.stages.autoencoder import AutoencoderTraining
from ups.config.stages.cache_encode import CacheEncode
from ups.config.stages.consistency import ConsistencyTraining
from ups.config.stages.diffusion import DiffusionTraining
from ups.config.stages.evaluate import Evaluation
from ups.config.stages.operator import OperatorTraining
from ups.kinds import kind_of
from ups.problems.generated import FromSinusoids, ProblemData
from ups.section import Count, Name, Parallel, Positive, Section, Seed

STAGES: dict[str, Stage] = all_stages()
"""By name, each behind what it reads."""
TRAINING_STAGES = tuple(name for name, stage in STAGES.items() if stage.trains)
DATA = "data"
"""The artifacts of which `download` is made: trajectories of one problem and split, which runs share."""
CHANGE_NO_RESULT = frozenset({"tracking", "resources", "gates", "hooks"})
"""Sections of which no key counts for any stage: runs that differ in them alone do the same."""


def _recomputed(value: object) -> object:
    if value != "products" and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000
    ):
        raise ValueError(f"must be 0 to 1000, or products (got {reprlib.repr(value)})")
    return value


Recomputation = Annotated[
    int | Literal["products"],
    BeforeValidator(_recomputed),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"const": "products"}]}),
]


class Execution(Section):
    """How training stages run. What changes the numbers counts for the digest."""

    processes: Parallel = Field(default=1, description="ranks started by torchrun, on every machine")
    nodes: Parallel = Field(
        default=1,
        description="machines with these processes, and one file system; on all but the first `ups join` runs. The key has "
        "the number of ranks on all machines together",
    )
    threads: Parallel = Field(default=2, description="threads per process")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where stages compute. auto: a GPU if there is one"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        default="fp32",
        description="of the networks; tf32: matrix products of a GPU keep ten bits; bf16, fp16: autocast of the forward pass, fp16 with a "
        "scaled loss. In all, weights, finished codecs, what a step solves exactly and losses are fp32; in bf16 and fp16 also maps in "
        "and out of a network, what its blocks add up, norms and Fourier transforms",
    )
    data_parallel: Literal["all_reduce", "ddp", "fsdp"] = Field(
        default="all_reduce",
        description="what processes share. all_reduce: gradients, after the backward pass, in one buffer; ddp: gradients, while it goes "
        "on; fsdp: weights, averages and what the optimiser remembers too",
    )
    compile: Literal[False, True, "blocks", "max-autotune"] = Field(
        default=False,
        description="torch.compile each network, or each of its blocks by itself; max-autotune: each network, with those kernels that are "
        "measured to be the fastest, so that two compilations may differ in the last bits. Not false means all of it or an error",
    )
    cuda_graphs: Literal["auto", True, False] = Field(
        default="auto",
        description="launch a training step as one CUDA graph; the same numbers, faster. auto: on a GPU, with one process; "
        "true means this or an error",
    )
    activation_checkpointing: Recomputation = Field(
        default=0,
        description="every n-th block of a network keeps only its input for the backward pass, which computes it again: less memory, "
        "and in eager fp32 the same numbers; products: every block also keeps what matrix products and attention give; 0: none",
    )
    allow_layout_change: bool = Field(
        default=False,
        description="a training that was begun or finished with other processes, nodes, threads or data_parallel, and differs in nothing "
        "else, is continued or used, not bit for bit; the manifest says so. It is no part of the key, and may be set at any time",
    )

    @property
    def ranks(self) -> int:
        """On all machines together."""
        return self.nodes * self.processes

    @property
    def ranks_in_words(self) -> str:
        """By the keys that they come from, for messages."""
        several = f" on execution.nodes {self.nodes}" if self.nodes > 1 else ""
        return f"execution.processes {self.processes}{several}"


LoadingMode = Literal["auto", "device", "memory", "stream", "encode"]


class Loading(Section):
    """How the operator's training reads the cache; the models of its residual keep theirs on the device.

    All modes but `encode` give the same bits.
    """

    mode: LoadingMode = Field(
        default="auto",
        description="device: all on the training device; memory: in RAM; stream: from the cache's chunks with "
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

    wandb: Literal["disabled", "offline", "online"] = Field(
        default="offline", description="offline: kept in the run's directory, for `ups sync`"
    )
    project: str = Field(default="ups", min_length=1, description="W&B's project")
    entity: str | None = Field(default=None, min_length=1, description="W&B's user or team; null: your own")
    group: str | None = Field(
        default=None,
        min_length=1,
        description="runs that belong together; null: those of the configuration's name",
    )
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), description="words to find runs by"
    )
    upload: tuple[Literal["report", "models"], ...] = Field(
        default=(), description="what is kept as artifacts of a finished run"
    )


class Resources(Section):
    """What the machine costs. Never part of a digest."""

    hourly_rate_usd: Annotated[float, Field(ge=0, lt=1e6)] | None = Field(
        default=None, description="of all machines of a run together, in US dollars an hour; null: not known"
    )

    def cost(self, seconds: float) -> float | None:
        """US dollars; None where the rate is not known."""
        return None if self.hourly_rate_usd is None else self.hourly_rate_usd * seconds / 3600


def _a_command(value: object) -> object:
    words = value if isinstance(value, list) else [value]
    if not words or not all(isinstance(word, str) for word in words) or not words[0]:
        raise ValueError(f"must be text for sh -c, or a list of words (got {reprlib.repr(value)})")
    return value


Command = Annotated[
    str | list[str],
    BeforeValidator(_a_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


class Hooks(Section):
    """What is run when a run has ended, by a process of its own. Never part of a digest.

    A command is a list of words, or text for `sh -c`. It finds UPS_STATE (finished, failed, interrupted), UPS_RUN (the run's
    directory; empty where none was begun) and UPS_NAME in its environment, and prints into the run's logs/hooks.log.
    """

    finished: Command | None = Field(default=None, description="command where the run is done; null: none")
    failed: Command | None = Field(
        default=None, description="command where the run failed, crashed, was killed, or could not begin"
    )
    interrupted: Command | None = Field(
        default=None, description="command where the run was cancelled or interrupted, and can be resumed"
    )
    always: Command | None = Field(default=None, description="command in each of these cases, after theirs")
    timeout_seconds: Positive = Field(default=300.0, description="seconds after which a command is ended")


class _Run(Section):
    name: Name = Field(description="of the configuration; part of the names of its runs")
    seed: Seed = Field(default=0, description="seed of initial weights, batches and noise")
    seeds: Count = Field(
        default=1,
        le=100,
        description="runs of the chain, with seed, seed + 1, ...; results are shown with their range over seeds",
    )
    data: Data = Field(
        description="where trajectories come from: generated, a file, PDEBench, or a mix of several problems"
    )
    model: Model
    execution: Execution = Execution()
    loading: Loading = Loading()


def _with_stages(base: type[Section], prefix: str) -> type[Section]:
    """A section with one key for the settings of each stage that has them below a dotted key."""
    found: dict[str, Any] = {}
    for stage in STAGES.values():
        place, _, key = stage.section[0].rpartition(".") if stage.section else ("", "", "")
        if stage.section and place == prefix:
            section = stage.section[1]
            required = any(field.is_required() for field in section.model_fields.values())
            found[key] = (section, Field() if required else Field(default=section()))
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **found)


if TYPE_CHECKING:  # what is found has no type that a checker knows

    class _Trainings(Section):
        autoencoder: AutoencoderTraining
        operator: OperatorTraining
        diffusion: DiffusionTraining
        consistency: ConsistencyTraining

    class _RunOfStages(_Run):
        training: _Trainings
        cache_encode: CacheEncode
        evaluation: Evaluation
else:

    class Trainings(Section):
        """Settings of the trainings."""

    Trainings = _with_stages(Trainings, "training")

    class _RunOfStages(_with_stages(_Run, "")):
        training: Trainings


class Configuration(_RunOfStages):
    """One run."""

    tracking: Tracking = Tracking()
    resources: Resources = Resources()
    gates: Gates = Gates()
    hooks: Hooks = Hooks()

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
        """What stands beside the network of a problem."""
        path = self.model.operator.linear_path
        return path[problem] if isinstance(path, dict) else path

    @property
    def optimizers(self) -> dict[str, OptimizerSettings]:
        """Of every training, by its key and kind as messages name it."""
        found = {}
        for stage in TRAINING_STAGES:
            optimizer = getattr(self.training, stage).optimizer
            found[f"training.{stage}.optimizer: {kind_of(optimizer)}"] = optimizer
        return found

    def graphs_problem(self, device: Literal["auto", "cpu", "cuda"]) -> str | None:
        """Why steps cannot be CUDA graphs on a device; None if they can."""
        execution = self.execution
        if device == "cpu":
            return "needs a GPU, and execution.device is cpu: write auto"
        if execution.ranks > 1:
            return f"is for one process, and this run has {execution.ranks_in_words}: write auto"
        for where, optimizer in self.optimizers.items():
            if optimizer.no_graphs:
                return f"{optimizer.no_graphs} {where}: write auto, or another kind"
        return None

    @model_validator(mode="after")
    def _execution_is_possible(self) -> Self:
        execution = self.execution
        shared = execution.data_parallel
        if shared != "all_reduce" and execution.ranks == 1:
            raise ValueError(
                f"execution.data_parallel: {shared} is for several processes, and execution.processes is 1: write "
                "all_reduce, or raise processes or nodes"
            )
        if shared == "fsdp" and execution.compile not in (False, "blocks"):
            raise ValueError(
                f"execution.data_parallel: fsdp gathers weights between blocks, and execution.compile: {str(execution.compile).lower()} "
                "makes one program of the whole network: write compile: blocks"
            )
        for where, optimizer in self.optimizers.items():
            if shared == "fsdp" and optimizer.no_shards:
                raise ValueError(
                    f"execution.data_parallel: fsdp shares out rows of weights, and {where} {optimizer.no_shards}: write ddp, "
                    "or another kind"
                )
        if shared == "fsdp" and self.training.operator.joint is not None:
            raise ValueError(
                "execution.data_parallel: fsdp shares out the weights that a step finds in its model, and "
                "training.operator.joint also moves a codec that is used outside: write ddp"
            )
        problem = self.graphs_problem(execution.device)
        if execution.cuda_graphs is True and problem:
            raise ValueError(f"execution.cuda_graphs: true {problem}")
        if execution.precision == "tf32" and execution.device == "cpu":
            raise ValueError(
                "execution.precision: tf32 is a format of GPUs, and execution.device is cpu: write fp32"
            )
        return self

    @model_validator(mode="after")
    def _gates_are_of_this_run(self) -> Self:
        if problem := self.gates.problem(TRAINING_STAGES, self.problems):
            raise ValueError(problem)
        for number, gate in enumerate(self.gates.test):
            if problem := self.evaluation.row_problem(gate.model):
                raise ValueError(f"gates.test.{number}.model: {problem}: change that, or leave the gate out")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = list(self.problems)
        model = self.model
        for key, given, one in (
            ("latent.tokens", model.latent.tokens, "number"),
            ("operator.linear_path", model.operator.linear_path, "value"),
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
        if problem := self._points_problem():
            raise ValueError(problem)
        if corrected and not self.training.autoencoder.steps:
            raise ValueError(
                f"training.autoencoder.steps: 0 leaves the correction of the {corrected[0]} untrained: raise it, or "
                f"set model.{corrected[0]}.depth: 0"
            )
        if isinstance(
            model.encoder, PointEncoder
        ):  # what is learnt there comes before the codec, which is linear
            corrected = [part for part in corrected if part != "encoder"]
        if self.evaluation.outside is not None and not any(
            isinstance(data, FromSinusoids) for data in self.problems.values()
        ):
            raise ValueError(
                "evaluation.outside: initial states are turned into others where they were generated, of Burgers or "
                "advection, and no problem here is: write null"
            )
        if self.evaluation.ttc is not None and (problem := self.evaluation.ttc.problem_with(self)):
            raise ValueError(f"evaluation.ttc.{problem}")
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
        if problem := self.leads_problem({name: data.kept_frames for name, data in self.problems.items()}):
            raise ValueError(problem)
        for name, data in self.problems.items():
            if problem := self.grid_problem(name, data.kept_grid, data.kept_frames):
                raise ValueError(problem)
            if problem := self._physics_problem(name, data, corrected):
                raise ValueError(problem)
            if problem := self.evaluation.problem_of(name, data, data.kept_frames):
                raise ValueError(problem)
            operator = self.training.operator
            held_out = round(data.counts.train * operator.residual_fraction)
            if not 0 < held_out < data.counts.train:
                raise ValueError(
                    f"training.operator.residual_fraction: {operator.residual_fraction} of "
                    f"{data.counts.train} train trajectories leaves none for the operator or none for the "
                    f"diffusion model: raise the train trajectories of {name} or change the fraction"
                )
        ranks = self.execution.ranks
        for stage in TRAINING_STAGES:
            settings = getattr(self.training, stage)
            batch, parts = settings.batch_size, settings.accumulation
            share, rest = divmod(batch, ranks)
            if rest:
                raise ValueError(
                    f"training.{stage}.batch_size: {batch} is not a multiple of {self.execution.ranks_in_words}, and every "
                    f"rank takes an equal share: write {(share + 1) * ranks}"
                )
            if share % parts:
                raise ValueError(
                    f"training.{stage}.accumulation: {parts} equal parts of {share} samples are impossible, and so many has a "
                    f"rank with training.{stage}.batch_size {batch} and {self.execution.ranks_in_words}: write a divisor of {share}"
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

    def _physics_problem(self, name: str, data: ProblemData, corrected: list[str]) -> str | None:
        """Why symmetries, exact diffusion or conservation cannot be had; None if they can."""
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
        operator = self.model.operator
        together = 2 ** getattr(operator, "levels", 0) * (getattr(operator, "window", None) or 1)
        if uses.shift == "average" and together > 1:
            return (
                f"model.symmetries.shift: average is over shifts within a token, and {kind_of(operator)} commutes with "
                f"those by {together} tokens: write augment or off"
            )
        if uses.scaling == "exact" and equation.symmetries.scaled_by is None and corrected:
            return (
                f"model.symmetries.scaling: exact needs a linear codec, and model.{corrected[0]}.depth is not 0: set "
                "it to 0, or write augment"
            )
        declared = equation.fields_in(variables)
        keeps = boundary == "periodic" and not equation.is_map and any(field.conserved for field in declared)
        if self.linear_path(name) == "exact":
            key = "model.operator.linear_path: exact"
            none = "write none" if len(self.problems) == 1 else f"write {name}: none"
            if equation.diffusion is None:
                return f"{key} solves diffusion, and {equation.title} has no such term: {none}"
            if boundary != "periodic" or len(equation.axes) != 1:
                return f"{key} is for one periodic axis, and {equation.title} has {boundary} boundary: {none}"
            if corrected:
                return f"{key} needs a linear codec, and model.{corrected[0]}.depth is not 0: set it to 0, or {none}"
            if self.training.operator.joint is not None:
                return (
                    f"{key} needs a codec that stays as it is, and training.operator.joint trains it: {none}, or joint: "
                    "null"
                )
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

    def _points_problem(self) -> str | None:
        """Why an encoder of points cannot be used so; None if it can."""
        if not isinstance(self.model.encoder, PointEncoder):
            return None
        if self.loading.mode == "encode":
            return (
                "loading.mode: encode reads whole frames in every batch, and model.encoder: points sees each trajectory at its own "
                "points, once for the cache: write auto"
            )
        if self.training.operator.joint is not None:
            return (
                "training.operator.joint: trains the encoder of whole frames, and model.encoder: points sees points of them: write "
                "null"
            )
        return None

    def leads_problem(self, frames: Mapping[str, int | None]) -> str | None:
        """Why a position of the denoiser cannot hold as many leads as it should; None if it can.

        The longest forecast counts: of a shorter one, and of a map, which has one lead, the last position is filled up.

        Args:
            frames: kept of every problem; None as long as only a file knows.
        """
        leads = {
            name: count and count - 1
            for name, count in frames.items()
            if not self.problems[name].problem.is_map
        }
        known = {name: count for name, count in leads.items() if count is not None}
        size = self.model.denoiser.leads_per_position
        if not known or len(known) < len(leads) or size <= max(known.values()):
            return None
        longest = max(known, key=lambda name: known[name])
        return (
            f"model.denoiser.leads_per_position: {size} leads make one position, and the longest forecast, of {longest}, has "
            f"{known[longest]}: write at most {known[longest]}"
        )

    def grid_problem(self, name: str, grid: tuple[int, ...] | None, frames: int | None) -> str | None:
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
            walled = self.problems[name].usual_boundary != "periodic"
            encoder = self.model.encoder
            if isinstance(encoder, PointEncoder) and (problem := encoder.problem(name, grid, walled=walled)):
                return problem
            size = tokens ** len(grid) * self.model.latent.dim
            if self.linear_path(name) not in {"none", "exact"} and walled and size > LARGEST_MATRIX:
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
            coarsest, window = tokens // 2**halvings, getattr(operator, "window", None)
            if window and coarsest % window:
                where = f" per axis, halved {halvings} times" if halvings else " per axis"
                even = [str(n) for n in _divisors(coarsest) if n % 2 == 0]
                return (
                    f"model.operator.window: {window} does not divide the {coarsest} tokens of {name}{where}: choose one of "
                    f"{', '.join([*even, 'null'])}"
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
