"""metrics.jsonl: the record of a training, one JSON object per line, append-only."""

import json
import math
import os
from pathlib import Path
from typing import Any

from ups.artifacts.files import read_records, write_text


class Records:
    """Appends records; on resume, forgets those of steps that will be done again.

    A record is {"step", "steps", ...} with term names as users know them ("loss", "L_forward"). Readers
    follow the file while it grows, so a line is written in one call.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [record for record in read_records(path) if record["step"] <= resume_step]
        write_text(path, "".join(_line(record) for record in kept))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(self, record: dict[str, Any]) -> None:
        os.write(self._descriptor, _line(record).encode())

    def close(self) -> None:
        os.close(self._descriptor)


def _line(record: dict[str, Any]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
