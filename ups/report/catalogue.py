"""What things are called and how they look: the same in every figure, table and sentence.

Without matplotlib, for the page needs the names too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ups.errors import IntegrityError
from ups.model_labels import MODELS, Model

TRUTH_COLOUR = "#000000"

# Of each problem; which of them it has follows from its axes and from whether it is a map.
SPACE_TIME = "space_time.png"
FINAL_FRAME = "final_frame.svg"
IMAGES = "images.png"
ERROR_OVER_TIME = "error_over_time.svg"
ERRORS_BY_LEAD = "errors_by_lead.svg"
ERROR_HISTOGRAM = "error_histogram.svg"
SPECTRUM = "spectrum.svg"
CALIBRATION = "calibration.svg"
RELIABILITY = "reliability.svg"
CONDITIONING = "conditioning.svg"
# Of the run.
FIGURES = "figures"
"""Where they lie in a run's directory."""
TRAINING = "training.svg"


def figures_of(axes: int, *, is_map: bool, by_lead: bool = False, conditioned: bool = False) -> list[str]:
    """File names of the figures that a problem of so many space axes has, in the order of the page.

    by_lead: see `has_lead_times`.
    conditioned: there are rows of test-time conditioning.
    """
    chosen = [CONDITIONING] if conditioned else []
    fields = [IMAGES] if axes == 2 else [FINAL_FRAME] if is_map else [SPACE_TIME, FINAL_FRAME]
    errors = [ERROR_HISTOGRAM] if is_map else [ERROR_OVER_TIME]
    if by_lead:
        errors.append(ERRORS_BY_LEAD)
    return [*fields, *errors, SPECTRUM, CALIBRATION, RELIABILITY, *chosen]


def has_lead_times(records: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some record of a problem has values by lead time: not those of a map, nor of earlier versions."""
    return any(record.get("by_lead") is not None for record in records)


def model_named(name: str) -> Model:
    """How a model of the records is shown.

    Raises:
        IntegrityError: no model of this name is known here.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise IntegrityError(
            f"the model {name!r} has no label and colour",
            where="report",
            fix="add it to MODELS in ups/model_labels.py",
        ) from None


def entry(values: Any, *keys: str, where: str) -> Any:
    """values[key][key]..., for data that a file holds.

    Raises:
        IntegrityError: a key is missing; the message names the file and the path to the key.
    """
    for depth, key in enumerate(keys):
        if not isinstance(values, dict) or key not in values:
            raise IntegrityError(f"has no {'.'.join(keys[: depth + 1])!r}", where=where)
        values = values[key]
    return values
