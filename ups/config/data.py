"""The `data` section: where the trajectories of a run come from, for one problem or a mix of several."""

import difflib
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ups.kinds import sections_of
from ups.problems import PROBLEMS, Boundary, Problem, Variables
from ups.problems.generated import MAP_FRAMES, EquationData, ProblemData, Splits
from ups.problems.published import DARUS, PUBLISHED, TEST_ROWS, PublishedFile
from ups.section import Count, Integer, Name, Positive, Section, Seed

Sampling = Literal["balanced", "proportional", "difficulty_weighted"]


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no path has")
    return value


GENERATED = sections_of("ups.problems.equations")
if TYPE_CHECKING:
    EvolutionName = str
    MapName = str
else:
    EvolutionName = Literal[tuple(name for name, problem in PROBLEMS.items() if not problem.is_map)]
    MapName = Literal[tuple(name for name, problem in PROBLEMS.items() if problem.is_map)]

Path = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]


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
        return ("ups.tools.copying",)

    @property
    def kept_grid(self) -> None:
        return None

    @property
    def stored_grid(self) -> None:
        return None

    @property
    def kept_frames(self) -> int | None:
        return MAP_FRAMES if self.problem.is_map else getattr(self, "frames")  # noqa: B009


class EvolutionFile(DataFile):
    """A file of trajectories."""

    equation: EvolutionName = Field(default="burgers1d", description="that the file's fields obey")
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

    equation: MapName = Field(description="that the file's fields obey")


class Rows(Section):
    """Row ranges [start, stop) of a published file. Rows before 1000 are PDEBench's test set."""

    test: tuple[Integer, Integer] = Field(description="[start, stop), at most 1000: PDEBench's test set")
    train: tuple[Integer, Integer] = Field(description="[start, stop), 1000 or more")
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
        return ("ups.tools.fetching",)

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
            return MAP_FRAMES
        return self.frames or (self.published.frames - 1) // self.time_stride + 1


def _require_variables(problem: Problem, variables: Variables) -> None:
    if variables == "conserved" and not problem.conserved_fields:
        raise ValueError(f"variables: {problem.name} has no others than its stored ones; write primitive")


def _tag(value: Any) -> str | None:
    """`source` and `equation` together name the section; an absent equation is Burgers."""
    read = value.get if isinstance(value, dict) else lambda key, default=None: getattr(value, key, default)
    source, equation = read("source"), str(read("equation", "burgers1d"))
    match source:
        case "generated" if equation in GENERATED:
            return f"generated {equation}"
        case "file":
            return "file of a map" if equation in PROBLEMS and PROBLEMS[equation].is_map else "file"
        case "pdebench":
            return "pdebench"
        case _:
            return None


def _one_or_mix(value: Any) -> str:
    source = value.get("source") if isinstance(value, dict) else getattr(value, "source", None)
    return "mix" if source == "mix" else "one"


_OF_ONE: dict[str, type[Section]] = {
    **{f"generated {equation}": section for equation, section in GENERATED.items()},
    "file": EvolutionFile,
    "file of a map": MapFile,
    "pdebench": PublishedData,
}
if TYPE_CHECKING:
    OneProblem = ProblemData  # a union of what is found has no type that a checker knows
else:
    OneProblem = Annotated[
        Union[tuple(Annotated[section, Tag(tag)] for tag, section in _OF_ONE.items())],  # noqa: UP007  as many as there are
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

TAGGED = _OF_ONE | {"mix": Mix}
"""The section behind each tag, for messages: validation errors name the tags that they passed."""


def how_read(data: ProblemData) -> dict[str, Any]:
    """What the stages take of a problem's trajectories."""
    return {"stride": data.stride, "variables": data.used_variables()}
