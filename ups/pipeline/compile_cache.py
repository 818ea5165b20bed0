"""What torch.compile made, kept below the root: the same network is compiled once, and not at the start of every stage of every run."""

import os
import shutil
from pathlib import Path

QUOTA_BYTES = 2 << 30
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compile_cache(artifacts: Path) -> dict[str, str]:
    """Environment that names the cache, trimmed to its quota; a user's own variable stays.

    artifacts: the store's directory.
    """
    if _VARIABLE in os.environ:
        return {}
    directory = artifacts / ".compiled"
    directory.mkdir(parents=True, exist_ok=True)
    trim(directory, QUOTA_BYTES)
    return {_VARIABLE: str(directory)}


def trim(directory: Path, quota: int) -> None:
    """Remove what was written longest ago, whole entries of the directory, until the rest takes no more bytes than the quota.

    Not by the last use, which file systems note once a day, and backups disturb.
    """
    found = {entry: _bytes_and_time(entry) for entry in directory.iterdir()}
    total = sum(size for size, _ in found.values())
    for entry, (size, _) in sorted(found.items(), key=lambda item: item[1][1]):
        if total <= quota:
            return
        # Another stage may be removing it too, or writing there: torch makes again what it does not find.
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        total -= size


def _bytes_and_time(entry: Path) -> tuple[int, float]:
    """Of the files of an entry, and when the last one was written."""
    total, written = 0, 0.0
    inside = (Path(place) / name for place, _, names in os.walk(entry) for name in names)
    for path in [entry] if entry.is_file() else inside:
        try:
            status = path.lstat()
        except FileNotFoundError:  # another process trims it
            continue
        total, written = total + status.st_size, max(written, status.st_mtime)
    return total, written
