"""The `data` section: where the trajectories of a run come from, for one problem or a mix of several."""

import difflib
import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ups.config.section import Count, Integer, Name, Positive, Real, Section, Seed
from ups.problems import PROBLEMS, Boundary, Problem, ProblemName, Variables
from ups.problems.published import DARUS, PUBLISHED, TEST_ROWS, PublishedFile

Sampling = Literal["balanced", "proportional", "difficulty_weighted"]

_MAP_FRAMES = 2  # a map goes through the chain as two frames: the given fields, and all of them


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no path has")
    return value


Path = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]


class Splits(Section):
    """Number of trajectories per split. Splits are by trajectory and disjoint."""

    train: Count
    validation: Count
    test: Count

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


class ProblemData(Section):
    """Base of the data of one problem: what every source knows, or does not know before it is read."""

    @property
    def problem(self) -> Problem:
        """The declaration of its equation."""
        raise NotImplementedError

    @property
    def counts(self) -> Splits:
        """Trajectories per split."""
        raise NotImplementedError

    @property
    def kept_grid(self) -> tuple[int, ...] | None:
        """Grid points kept per space axis; None where only a file knows."""
        raise NotImplementedError

    @property
    def stored_grid(self) -> tuple[int, ...] | None:
        """Grid points per space axis in the artifact, whose readers stride."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Of the stored points, every which one is kept, per space axis."""
        return getattr(self, "space_stride")  # noqa: B009  every source from a file declares it

    @property
    def kept_frames(self) -> int | None:
        """Frames kept per trajectory; None where only a file knows."""
        raise NotImplementedError

    @property
    def source_modules(self) -> tuple[str, ...]:
        """Modules that make the trajectories: the one with `make`, and those that it finds by name."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """Fields of the state."""
        return len(self.problem.fields)

    @property
    def usual_boundary(self) -> Boundary:
        """The boundary as far as the configuration knows it: a file may say another."""
        return getattr(self, "boundary", None) or self.problem.boundaries[0]

    def used_variables(self) -> Variables:
        """Which variables the models see."""
        return getattr(self, "variables", "primitive")


class EquationData(ProblemData):
    """Base of the sources that name their equation and the number of trajectories."""

    trajectories: Splits

    @property
    def problem(self) -> Problem:
        return PROBLEMS[getattr(self, "equation")]  # noqa: B009  every subclass declares it

    @property
    def counts(self) -> Splits:
        return self.trajectories


class Generated(EquationData):
    """Solve on this machine. A trajectory is a function of `seed` and its number."""

    source: Literal["generated"]
    resolution: Count = Field(ge=8, description="grid points kept per space axis")
    solver_resolution: Count = Field(ge=8, description="grid cells of the solver per space axis")
    seed: Seed = Field(default=0, description="seed of the initial states")

    @model_validator(mode="after")
    def _solver_grid_is_a_multiple(self) -> Self:
        if self.solver_resolution % self.resolution:
            raise ValueError(
                f"solver_resolution {self.solver_resolution} must be a multiple of resolution "
                f"{self.resolution}: the fields are the solver's, strided"
            )
        return self

    @property
    def source_modules(self) -> tuple[str, ...]:
        return "ups.stages.generation", self.generator

    @property
    def generator(self) -> str:
        """Module that solves these trajectories, see `ups.physics.generators`."""
        return f"ups.physics.generators.{self.problem.name}"

    @property
    def kept_grid(self) -> tuple[int, ...]:
        return (self.resolution,) * len(self.problem.axes)

    @property
    def stored_grid(self) -> tuple[int, ...]:
        return (self.solver_resolution,) * len(self.problem.axes)

    @property
    def stride(self) -> int:
        return self.solver_resolution // self.resolution

    @property
    def kept_frames(self) -> int:
        return getattr(self, "frames", _MAP_FRAMES)


class FromSinusoids(Generated):
    """Base of the problems that begin with PDEBench's sums of sines."""

    amplitude: Positive = Field(default=1.0, description="factor on PDEBench's initial states")
    offset: Real = Field(default=0.0, ge=-1e6, le=1e6, description="added to them")


class GeneratedBurgers(FromSinusoids):
    """1D Burgers: PDEBench's equation, scheme and distribution of initial states."""

    equation: Literal["burgers1d"] = "burgers1d"
    nu: Positive = Field(description="PDEBench's nu; the viscosity is nu / pi")
    frames: Count = Field(ge=2, description="frames per trajectory, the initial state included")
    frame_interval: Positive = Field(ge=1e-6, le=100, description="time between frames")


class GeneratedAdvection(FromSinusoids):
    """1D advection: PDEBench's distribution of initial states."""

    equation: Literal["advection1d"]
    beta: Positive = Field(description="speed")
    scheme: Literal["exact", "pdebench"] = Field(
        default="exact",
        description="exact: the initial state, shifted; pdebench: its upwind scheme, numerical diffusion included",
    )
    frames: Count = Field(ge=2, description="frames per trajectory, the initial state included")
    frame_interval: Positive = Field(ge=1e-6, le=100, description="time between frames")


class GeneratedDarcy(Generated):
    """2D Darcy flow: PDEBench's distribution of coefficients, its stored frame of the relaxation."""

    equation: Literal["darcy2d"]
    beta: Positive = Field(description="constant force")


class GeneratedCompressible(Generated):
    """1D compressible flow. The distribution of initial states is our own: PDEBench's is not documented."""

    equation: Literal["compressible1d"]
    eta: Positive = Field(description="shear and bulk viscosity over density (zeta = eta, as in PDEBench)")
    boundary: Literal["periodic", "outflow"] = "periodic"
    frames: Count = Field(ge=2, description="frames per trajectory, the initial state included")
    frame_interval: Positive = Field(ge=1e-6, le=100, description="time between frames")
    variables: Variables = Field(default="primitive", description="what the models see")


class DataFile(EquationData):
    """Read a file in PDEBench's layout."""

    source: Literal["file"]
    path: Path = Field(description="HDF5 file; relative paths start at the configuration file")
    space_stride: Count = Field(default=4, description="keep every n-th grid point per space axis")
    test_first: Count | None = Field(
        default=TEST_ROWS,
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

    @property
    def source_modules(self) -> tuple[str, ...]:
        return ("ups.stages.copying",)

    @property
    def kept_grid(self) -> None:
        return None

    @property
    def stored_grid(self) -> None:
        return None

    @property
    def kept_frames(self) -> int | None:
        return _MAP_FRAMES if self.problem.is_map else getattr(self, "frames")  # noqa: B009


class EvolutionFile(DataFile):
    """A file of trajectories."""

    equation: Literal["burgers1d", "advection1d", "compressible1d"] = "burgers1d"
    time_stride: Count = Field(default=5, description="keep every n-th frame")
    frames: Count | None = Field(default=None, ge=2, description="frames kept after striding; null: all")
    boundary: Boundary | None = Field(
        default=None, description="for files that do not store it; null: the equation's only one"
    )
    variables: Variables = Field(default="primitive", description="what the models see")

    @model_validator(mode="after")
    def _variables_and_boundary_exist(self) -> Self:
        _require_variables(self.problem, self.variables)
        if self.boundary is not None and self.boundary not in self.problem.boundaries:
            raise ValueError(
                f"boundary {self.boundary} is none of {self.equation}: choose one of "
                f"{', '.join(self.problem.boundaries)}"
            )
        return self


class MapFile(DataFile):
    """A file of a map's inputs and outputs."""

    equation: Literal["darcy2d"]


class Rows(Section):
    """Row ranges [start, stop) of a published file. Rows before 1000 are PDEBench's test set."""

    test: tuple[Integer, Integer]
    train: tuple[Integer, Integer]
    validation: tuple[Integer, Integer] | None = Field(
        default=None, description="null: the last tenth of the train range"
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (start, stop) in self.named().items():
            if not 0 <= start < stop:
                raise ValueError(
                    f"{name} [{start}, {stop}] is no range: write [start, stop) with start < stop"
                )
            if (name == "test") != (stop <= TEST_ROWS) or (name != "test" and start < TEST_ROWS):
                side = f"end at {TEST_ROWS} or before" if name == "test" else f"start at {TEST_ROWS} or later"
                raise ValueError(
                    f"{name} [{start}, {stop}] must {side}: the first {TEST_ROWS} rows are PDEBench's test set "
                    "and never train"
                )
        train, validation = self.split_train()
        if not (train[1] <= validation[0] or validation[1] <= train[0]):
            raise ValueError(
                f"train {list(train)} and validation {list(validation)} overlap: move one of them"
            )
        if train[0] == train[1]:
            raise ValueError(
                f"train {list(self.train)} is too short to leave a tenth for validation: lengthen it"
            )
        return self

    def named(self) -> dict[str, tuple[int, int]]:
        """The ranges as written."""
        ranges = {"test": self.test, "train": self.train}
        return ranges if self.validation is None else ranges | {"validation": self.validation}

    def by_split(self) -> dict[str, tuple[int, int]]:
        """The range of each split."""
        train, validation = self.split_train()
        return {"train": train, "validation": validation, "test": self.test}

    def split_train(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Ranges of train and validation."""
        if self.validation is not None:
            return self.train, self.validation
        start, stop = self.train
        middle = stop - math.ceil((stop - start) / 10)
        return (start, middle), (middle, stop)


class PublishedData(ProblemData):
    """Download from PDEBench: a whole file, or only some of its rows."""

    source: Literal["pdebench"]
    dataset: str = Field(description="name of a published file, e.g. 1D_Burgers_Sols_Nu0.01; `ups data list`")
    trajectories: Splits | None = Field(default=None, description="from the whole file; its MD5 is checked")
    rows: Rows | None = Field(default=None, description="only these rows are downloaded, by byte range")
    address: str = Field(
        default=DARUS,
        min_length=1,
        description="where files are: {id} is DaRUS's number, {name} the file's name; https, http or file",
    )
    deadline_hours: Positive = Field(default=6.0, description="total time for a download")
    space_stride: Count = Field(default=4, description="keep every n-th grid point per space axis")
    time_stride: Count = Field(default=5, description="keep every n-th frame; of no meaning for a map")
    frames: Count | None = Field(default=None, ge=2, description="frames kept after striding; null: all")
    variables: Variables = Field(default="primitive", description="what the models see")
    seed: Seed = Field(default=0, description="seed of the choice of rows of a whole file")

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if self.dataset not in PUBLISHED:
            near = difflib.get_close_matches(self.dataset, PUBLISHED, n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"dataset {self.dataset!r} is not published: {hint}`ups data list` shows all")
        if (self.trajectories is None) == (self.rows is None):
            raise ValueError(
                "give either trajectories (numbers per split, of the whole file) or rows (ranges to download)"
            )
        if self.trajectories is not None and self.trajectories.test > TEST_ROWS:
            raise ValueError(
                f"trajectories.test {self.trajectories.test} is above {TEST_ROWS}, PDEBench's test set: lower it"
            )
        if self.rows is not None:
            last = max(stop for _, stop in self.rows.named().values())
            if last > self.published.rows:
                raise ValueError(
                    f"rows end at {last}, and {self.dataset} has {self.published.rows}: lower them"
                )
        if self.published.resolution % self.space_stride:
            raise ValueError(
                f"space_stride {self.space_stride} does not divide the {self.published.resolution} points of "
                f"{self.dataset}"
            )
        last = self.published.frames - 1
        available = last // self.time_stride + 1
        if self.frames is None and last % self.time_stride:
            raise ValueError(
                f"time_stride {self.time_stride} does not divide the {last} intervals of {self.dataset}: choose "
                "another, or give frames"
            )
        if self.frames is not None and self.frames > available and not self.problem.is_map:
            raise ValueError(
                f"frames {self.frames} are more than the {available} that time_stride {self.time_stride} leaves of "
                f"{self.dataset}: lower frames or time_stride"
            )
        _require_variables(self.problem, self.variables)
        return self

    @property
    def source_modules(self) -> tuple[str, ...]:
        return ("ups.stages.fetching",)

    @property
    def published(self) -> PublishedFile:
        return PUBLISHED[self.dataset]

    @property
    def problem(self) -> Problem:
        return self.published.problem

    @property
    def usual_boundary(self) -> Boundary:
        return self.published.boundary

    @property
    def counts(self) -> Splits:
        if self.trajectories is not None:
            return self.trajectories
        assert self.rows is not None
        (train, validation), test = self.rows.split_train(), self.rows.test
        return Splits(
            train=train[1] - train[0], validation=validation[1] - validation[0], test=test[1] - test[0]
        )

    @property
    def kept_grid(self) -> tuple[int, ...]:
        return (self.published.resolution // self.space_stride,) * len(self.problem.axes)

    @property
    def stored_grid(self) -> tuple[int, ...]:
        return (self.published.resolution,) * len(self.problem.axes)

    @property
    def kept_frames(self) -> int:
        if self.problem.is_map:
            return _MAP_FRAMES
        return self.frames or (self.published.frames - 1) // self.time_stride + 1


def _require_variables(problem: Problem, variables: Variables) -> None:
    if variables == "conserved" and not problem.conserved_fields:
        raise ValueError(f"variables: {problem.name} has no others than its stored ones; write primitive")


def _tag(value: Any) -> str | None:
    """`source` and `equation` together name the section; an absent equation is Burgers."""
    read = value.get if isinstance(value, dict) else lambda key, default=None: getattr(value, key, default)
    source, equation = read("source"), read("equation", "burgers1d")
    match source:
        case "generated" if equation in _GENERATED:
            return f"generated {equation}"
        case "file":
            return "file darcy2d" if equation == "darcy2d" else "file"
        case "pdebench":
            return "pdebench"
        case _:
            return None


def _one_or_mix(value: Any) -> str:
    source = value.get("source") if isinstance(value, dict) else getattr(value, "source", None)
    return "mix" if source == "mix" else "one"


_GENERATED = get_args(ProblemName)

OneProblem = Annotated[
    Annotated[GeneratedBurgers, Tag("generated burgers1d")]
    | Annotated[GeneratedAdvection, Tag("generated advection1d")]
    | Annotated[GeneratedDarcy, Tag("generated darcy2d")]
    | Annotated[GeneratedCompressible, Tag("generated compressible1d")]
    | Annotated[EvolutionFile, Tag("file")]
    | Annotated[MapFile, Tag("file darcy2d")]
    | Annotated[PublishedData, Tag("pdebench")],
    Discriminator(_tag),
]


class Mix(Section):
    """Several problems in one model. A batch holds one problem; `sampling` says how often each is drawn."""

    source: Literal["mix"]
    problems: dict[Name, OneProblem] = Field(
        min_length=1, description="data of each problem, by a name of yours"
    )
    sampling: Sampling = Field(
        default="balanced",
        description="balanced: all equally often; proportional: by number of train windows; "
        "difficulty_weighted: by smoothed validation error",
    )


Data = Annotated[Annotated[OneProblem, Tag("one")] | Annotated[Mix, Tag("mix")], Discriminator(_one_or_mix)]

TAGGED: dict[str, type[Section]] = {
    "generated burgers1d": GeneratedBurgers,
    "generated advection1d": GeneratedAdvection,
    "generated darcy2d": GeneratedDarcy,
    "generated compressible1d": GeneratedCompressible,
    "file": EvolutionFile,
    "file darcy2d": MapFile,
    "pdebench": PublishedData,
    "mix": Mix,
}
"""The section behind each tag, for messages: validation errors name the tags that they passed."""
