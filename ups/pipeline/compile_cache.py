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
    """Remove what was used longest ago, whole entries of the directory, until the rest takes no more bytes than the quota."""
    sizes = {entry: _bytes_and_use(entry) for entry in directory.iterdir()}
    total = sum(size for size, _ in sizes.values())
    for entry, (size, _) in sorted(sizes.items(), key=lambda item: item[1][1]):
        if total <= quota:
            return
        # Another stage may be removing it too, or writing there: torch makes again what it does not find.
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        total -= size


def _bytes_and_use(entry: Path) -> tuple[int, float]:
    total, used = 0, 0.0
    inside = (Path(place) / name for place, _, names in os.walk(entry) for name in names)
    for path in (entry, *inside):
        try:
            status = path.lstat()
        except FileNotFoundError:  # another process trims it
            continue
        total, used = total + status.st_size, max(used, status.st_atime, status.st_mtime)
    return total, used
