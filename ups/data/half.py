"""Rounding to float16, the type of everything cached; what does not fit is an error and never infinity."""

import numpy as np
from numpy.typing import NDArray

from ups.errors import DataError


def rounded_to_half(values: NDArray[np.float32], where: str) -> NDArray[np.float16]:
    """The nearest float16 of every value.

    Args:
        where: what the values are, for the message.

    Raises:
        DataError: a value is not finite or beyond float16.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise DataError(
            f"value {float(np.abs(values).max()):g} does not fit float16 (largest {np.finfo(np.float16).max:g})",
            where=where,
            fix="rescale the field's units in the source file",
        )
    return rounded
