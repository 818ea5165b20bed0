"""The well-formed files that are spoiled, and what a case of spoiling is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from small_files import ROWS, small

from ups.problems import PROBLEMS, Problem
from ups.problems.published import PUBLISHED

GENUINE = (
    "1D_Burgers_Sols_Nu0.001",
    "1D_Burgers_Sols_Nu0.01",
    "1D_Advection_Sols_beta0.1",
    "1D_Advection_Sols_beta1.0",
    "2D_DarcyFlow_beta1.0_Train",
)
REWRITTEN = {
    "chunked": ("earliest", {"chunks": (2, 5, 8)}),
    "compressed": (
        "earliest",
        {"chunks": (2, 5, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
    ),
    "latest": ("latest", {"chunks": (1, 5, 4)}),
    "texts": ("earliest", {}),  # of variable length, as h5py writes them by itself
}
BASES = (*PROBLEMS, *(f"burgers1d-{kind}" for kind in REWRITTEN), *GENUINE)


def problem_of(base: str) -> Problem:
    return PUBLISHED[base].problem if base in PUBLISHED else PROBLEMS[base.split("-")[0]]


@dataclass(frozen=True)
class Case:
    """One spoiled file.

    Attributes:
        spoil: changes the copy of the base file that it is given.
        outcome: "error"; "equal", the same data; "either" of them or other data, which a checksum of the file
            tells; or "row", an error or other values, in either case of `row`.
        about: the dataset or attribute that the error names.
    """

    name: str
    base: str
    spoil: Callable[[Path], object]
    outcome: str
    about: str = ""
    row: int | None = None


def make_base(base: str, path: Path) -> None:
    """Write the file that the cases start from; genuine ones are copied elsewhere."""
    name, _, kind = base.partition("-")
    small(problem_of(base).name).write(path, original_rows=np.arange(ROWS) + 100)
    if kind:
        version, options = REWRITTEN[kind]
        plain = path.rename(path.with_suffix(".plain"))
        with h5py.File(plain) as source, h5py.File(path, "w", libver=version) as target:
            for key in source:
                target.create_dataset(key, data=source[key][:], **(options if key == "tensor" else {}))
            for attribute, value in source.attrs.items():
                text = kind == "texts" and isinstance(value, bytes)
                target.attrs[attribute] = value.decode() if text else value
        plain.unlink()
    assert name in PROBLEMS
