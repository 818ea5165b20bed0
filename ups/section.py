"""What every section of the schema is made of: its base, and numbers and names with their limits."""

import re
import reprlib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # to Python, and so to pydantic, `true` is 1
        raise ValueError(f"must be a number (got {str(value).lower()})")
    return value


def _a_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise ValueError(
            f"must be 1 to 64 letters, digits, _ or -, a letter or digit first (got {reprlib.repr(value)})"
        )
    return value


# Limits far above any use: what is beyond is a slip, and would be found only when memory or patience ends.
Name = Annotated[str, AfterValidator(_a_name)]
Integer = Annotated[int, BeforeValidator(_no_boolean)]
Real = Annotated[float, BeforeValidator(_no_boolean)]
Count = Annotated[Integer, Field(ge=1, le=10**9)]
Seed = Annotated[Integer, Field(ge=0, lt=2**53)]
Parallel = Annotated[Integer, Field(ge=1, le=1024)]
Positive = Annotated[Real, Field(gt=0, le=1e9)]
NonNegative = Annotated[Real, Field(ge=0, le=1e9)]
Share = Annotated[Real, Field(gt=0, lt=1)]
Decay = Annotated[Real, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
