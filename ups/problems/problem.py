"""What is declared of an equation: domain, boundary, parameters, fields with units, and PDEBench's file layout.

What an axis, a key or an attribute means is declared here once and never inferred from a shape.

Sources: PDEBench (Takamoto et al. 2022; https://doi.org/10.18419/darus-2986) and the headers of its files.
Quantities are in PDEBench's own, dimensionless units; "length", "time", "mass" name their dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ORIGINAL_ROWS = "original-rows"
"""Dataset [n] int64 of a file with some rows of another: their numbers there."""

ProblemName = str
"""Name of a file in `ups/problems/equations`."""
Boundary = Literal["periodic", "outflow", "dirichlet"]
Variables = Literal["primitive", "conserved"]
Symmetry = Literal["shift", "reflection", "galilean", "offset", "scaling", "square"]

AMPLITUDE, LENGTH, TIME_STEP = "amplitude", "length", "time_step"
"""What a dimensionless number is made of, beside the parameters of an equation."""


@dataclass(frozen=True)
class Field:
    """One component of the state.

    Attributes:
        unit: its dimension.
        positive: values of zero and below are no state of the equation.
        conserved: its mean over a periodic domain is constant in time.
        dissipated: its root mean square over a periodic domain never grows.
        given: known beforehand, an input of a map and never scored.
    """

    name: str
    unit: str
    positive: bool = False
    conserved: bool = False
    dissipated: bool = False
    given: bool = False


@dataclass(frozen=True)
class StoredArray:
    """One array of a file: its key, and what its axes are ("sample", "time", "channel", "x", "y")."""

    key: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """A number of the equation, the attribute that holds it in a file, and what it is."""

    name: str
    attribute: str
    meaning: str


@dataclass(frozen=True)
class Symmetries:
    """Maps that turn a solution of the equation into another one.

    On a periodic domain every solution may also be shifted; that needs no declaration.

    Attributes:
        odd: fields that change sign when the space axis is reversed; None: reversing it gives no solution.
        square: both axes may be reversed and exchanged, eight ways in all, and no field changes sign.
        galilean: field to which a constant may be added if the frame moves with it.
        offset: fields to which any constant may be added, for the equation holds their derivatives alone.
        scaling: fields that may all be multiplied by one positive number, the equation's amplitude, if the
            dimensionless numbers change with it.
        scaled_by: what these fields are proportional to: a parameter, or one of them, which counts by its mean in the first
            frame; None: the amplitude is the field's own, its root mean square.
    """

    odd: tuple[str, ...] | None = None
    square: bool = False
    galilean: str | None = None
    offset: tuple[str, ...] = ()
    scaling: tuple[str, ...] = ()
    scaled_by: str | None = None


@dataclass(frozen=True)
class Diffusion:
    """The term factor * parameter * u_xx of an equation, in all of its fields."""

    parameter: str
    factor: float = 1.0


@dataclass(frozen=True)
class ExpectedDistance:
    """How far PDEBench's own rows are from our solver, in trajectory relative L2, at a value of the parameter.

    Measured on so many rows of PDEBench's own generator. A mean over few rows scatters: one row with a kink in its first
    frame outweighs a dozen without.
    """

    parameter: float
    over_rows: int
    mean: float
    median: float | None = None


@dataclass(frozen=True)
class Problem:
    """One equation and the layout of its files.

    Attributes:
        axes: space axes, in the order of the arrays' axes.
        domain: (lower, upper) of every space axis; cells are equal and values sit at their centres.
        boundaries: what files of this problem may have; the first is the usual one.
        fields: the state as it is stored, one per entry of `arrays`.
        conserved_fields: the same state in conserved variables, where that is something else.
        arrays: the arrays that hold `fields`, in the same order.
        time_key: dataset of the time stamps; None for a map, which has no time.
        is_map: not an evolution but a map from given fields to the others. It goes through the chain as two
            frames, the first with only the given fields known.
        symmetries: of the equation, in primitive variables.
        diffusion: by which every wave of a small state decays at its own, known rate; None: it has no such term.
        numbers: the dimensionless numbers that a solution depends on, each as exponents of the time step, the
            domain's length, the amplitude and the parameters. Networks are conditioned on their logarithms, so
            that what is the same physics is the same input.
        distances: expected of published files, at the parameters at which they were measured.
        file_sizes: settings with which generated files are as large as the published ones.
    """

    name: ProblemName
    title: str
    equation: str
    axes: tuple[str, ...]
    domain: tuple[tuple[float, float], ...]
    boundaries: tuple[Boundary, ...]
    parameters: tuple[Parameter, ...]
    fields: tuple[Field, ...]
    arrays: tuple[StoredArray, ...]
    time_key: str | None = "t-coordinate"
    is_map: bool = False
    conserved_fields: tuple[Field, ...] = ()
    symmetries: Symmetries = Symmetries()
    diffusion: Diffusion | None = None
    numbers: tuple[Mapping[str, float], ...] = field(default=(), hash=False)
    distances: tuple[ExpectedDistance, ...] = ()
    file_sizes: Mapping[str, float] = field(default_factory=dict, hash=False)

    def fields_in(self, variables: Variables) -> tuple[Field, ...]:
        """The fields in primitive (as stored) or conserved variables.

        Raises:
            ValueError: the problem has no other variables than its stored ones.
        """
        if variables == "primitive":
            return self.fields
        if not self.conserved_fields:
            raise ValueError(f"{self.name} has no conserved variables apart from its stored ones")
        return self.conserved_fields

    def has(self, boundary: Boundary, variables: Variables = "primitive") -> tuple[Symmetry, ...]:
        """The symmetries of this equation with a boundary, as far as they are declared for these variables."""
        declared, periodic = self.symmetries, boundary == "periodic"
        primitive = variables == "primitive"
        found: dict[Symmetry, bool] = {
            "shift": periodic,
            "reflection": declared.odd is not None,
            "galilean": declared.galilean is not None and periodic and primitive,
            "offset": bool(declared.offset) and periodic and primitive,
            "scaling": bool(declared.scaling) and primitive,
            "square": declared.square,
        }
        return tuple(name for name, present in found.items() if present)

    def coordinate_key(self, axis: str) -> str:
        """Dataset of the coordinates of a space axis."""
        return f"{axis}-coordinate"


TRAJECTORY = ("sample", "time", "x")
"""Axes of most arrays."""
