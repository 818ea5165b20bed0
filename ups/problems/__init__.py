"""What the data are: equations, layouts of their files, and the published files. Plain facts, no arrays.

The lowest room of the library: the configuration checks against these facts, readers and generators read and
write by them, `ups data` shows them.
"""

from ups.kinds import kinds_of, module_of
from ups.problems.problem import (
    AMPLITUDE,
    LENGTH,
    TIME_STEP,
    Boundary,
    ExpectedDistance,
    Field,
    Parameter,
    Problem,
    ProblemName,
    StoredArray,
    Symmetries,
    Symmetry,
    Variables,
)

__all__ = [
    "AMPLITUDE",
    "LENGTH",
    "PROBLEMS",
    "TIME_STEP",
    "Boundary",
    "ExpectedDistance",
    "Field",
    "Parameter",
    "Problem",
    "ProblemName",
    "StoredArray",
    "Symmetries",
    "Symmetry",
    "Variables",
]

PROBLEMS: dict[ProblemName, Problem] = {
    name: module_of("ups.problems.equations", name).PROBLEM for name in kinds_of("ups.problems.equations")
}
"""All equations, in alphabetical order."""
