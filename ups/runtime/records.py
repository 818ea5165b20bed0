"""metrics.jsonl: the record of a training, one JSON object per line, append-only."""

import json
import math
import os
from pathlib import Path
from typing import Any


class Records:
    """Appends records; on resume, forgets those of steps that will be done again.

    A record is {"step", "steps", ...} with term names as users know them ("loss", "L_forward"). Readers
    follow the file while it grows, so a line is written in one call.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [record for record in read_records(path) if record["step"] <= resume_step]
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(_line(record) for record in kept))
        temporary.replace(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(self, record: dict[str, Any]) -> None:
        os.write(self._descriptor, _line(record).encode())

    def close(self) -> None:
        os.close(self._descriptor)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a file; a torn last line, left by a killed writer, is not a record."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _line(record: dict[str, Any]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"
