"""How much memory of the host a process may still use."""

from pathlib import Path

_PROCESS, _CONTROL = Path("/proc"), Path("/sys/fs/cgroup")


def available_bytes(process: Path = _PROCESS, control: Path = _CONTROL) -> int:
    """What the kernel calls available, or less where a control group (a container, a batch job) limits us.

    Args:
        process: the proc file system.
        control: the control groups, version 2; others have no say here.
    """
    lines = dict(line.split(":", 1) for line in (process / "meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    for line in (process / "self" / "cgroup").read_text().splitlines():
        if line.startswith("0::"):
            own = control / line.removeprefix("0::").lstrip("/")
            for group in (own, *own.parents):
                if group.is_relative_to(control):
                    free = min(free, _left(group, free))
    return max(0, free)


def _left(group: Path, unlimited: int) -> int:
    """What a group has left; file pages that the kernel would drop at once do not count as used."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except FileNotFoundError:  # the root group has no limit, and a container may show only its own
        return unlimited
    return unlimited if limit == "max" else int(limit) - used + int(kept.get("inactive_file", 0))
