"""What the settings of data have in common, and those of generated data, whatever the equation."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ups.kinds import module_of
from ups.problems.problem import Boundary, Problem, Variables
from ups.section import Count, Positive, Real, Section, Seed

MAP_FRAMES = 2  # a map goes through the chain as two frames: the given fields, and all of them


class Splits(Section):
    """Number of trajectories per split. Splits are by trajectory and disjoint."""

    train: Count = Field(description="to learn from; all statistics are theirs")
    validation: Count = Field(description="to follow the trainings, and to fit the gates of the corrections")
    test: Count = Field(description="to score; no training reads them")

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


SPLITS = ("train", "validation", "test")
LEARNT_SPLITS = ("train", "validation")
"""What trainings read and validate on. Forecasts of the test split are scored against its file."""


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
    def declaration(self) -> str:
        """Module that declares its equation."""
        return f"ups.problems.equations.{self.problem.name}"

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
        # Not of PROBLEMS, for the equations are declared by subclasses of this.
        equation = getattr(self, "equation")  # noqa: B009  every subclass declares it
        return module_of("ups.problems.equations", equation).PROBLEM

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
        return "ups.tools.generation", self.generator

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
        return getattr(self, "frames", MAP_FRAMES)


class GeneratedEvolution(Generated):
    """Base of the problems that have frames."""

    frames: Count = Field(ge=2, description="frames per trajectory, the initial state included")
    frame_interval: Positive = Field(ge=1e-6, le=100, description="time between frames")


class FromSinusoids(GeneratedEvolution):
    """Base of the problems that begin with PDEBench's sums of sines."""

    amplitude: Positive = Field(default=1.0, description="factor on PDEBench's initial states")
    offset: Real = Field(default=0.0, ge=-1e6, le=1e6, description="added to them")
