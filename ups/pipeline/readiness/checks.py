"""What a machine should have before a run, each check by itself: facts in, a finding out.

`ups doctor` makes all of them, a flow and `ups run --dry` those that decide about a run.
"""

import fcntl
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from ups.errors import PreflightError
from ups.pipeline.execute import MARGIN
from ups.pipeline.readiness.prefect_server import Answer

Verdict = Literal["ok", "warning", "problem"]

DISTRIBUTION = "universal-physics-stack"
EXTRAS = ("flows", "tracking", "quantization")
"""Optional, but what is installed of them has to be as pinned."""
_SHOWN = ("torch", "prefect", "fastapi", "sqlalchemy")
"""Packages with a row of their own: those that are known to install without complaint and not to work."""
_OTHERWISE = {
    "prefect": "not tried",
    "fastapi": "Prefect's server does not start, or answers 422",
    "sqlalchemy": "schedules never fire",
}
_LEAST_FREE_BYTES = 10**9
_FEW_FREE_BYTES = 10**10
_SECONDS_APART = 5.0
"""torch takes a machine of a run with an older heartbeat for dead."""
_FILES = 4096
_LOCKED_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        found: in words.
        fix: what to do; empty where nothing is to be done.
    """

    what: str
    verdict: Verdict
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def require_no_problem(findings: Iterable[Finding], *, where: str) -> None:
    """Raise if one of the findings is a problem.

    Raises:
        PreflightError: says each of them, and its fix.
    """
    problems = [finding for finding in findings if finding.verdict == "problem"]
    if problems:
        lines = [f"{problem.what}: {problem.found}\n    fix: {problem.fix}" for problem in problems]
        raise PreflightError("\n  ".join(["not ready", *lines]), where=where)


def of_versions(requirements: Sequence[str], version_of: Callable[[str], str | None]) -> list[Finding]:
    """Installed packages against the pins of this project.

    Args:
        requirements: as in the metadata of the package, those of extras with their marker.
        version_of: of a package; None where it is not installed.
    """
    findings, as_pinned, absent = [], [], []
    for requirement in map(Requirement, requirements):
        extra = next((name for name in EXTRAS if _is_of(requirement, name)), None)
        if requirement.name == DISTRIBUTION or (requirement.marker and extra is None):
            continue  # of the development of this project
        name, pin = requirement.name, str(requirement.specifier)
        version, fix = version_of(name), f"pip install '{name}{requirement.specifier}'"
        if version is None:
            if extra is None:
                findings.append(Finding(name, "problem", f"is not installed; wanted {pin}", fix))
            else:
                absent.append(f"{name} ({extra})")
        elif not requirement.specifier.contains(version, prereleases=True):
            otherwise = f": {_OTHERWISE[name]}" if name in _OTHERWISE else ""
            findings.append(Finding(name, "problem", f"{version}, wanted {pin}{otherwise}", fix))
        elif name in _SHOWN:
            findings.append(Finding(name, "ok", f"{version} ({pin})"))
        else:
            as_pinned.append(name)
    findings.append(Finding("other packages", "ok", f"{len(as_pinned)} as pinned"))
    if absent:
        findings.append(Finding("optional packages", "ok", f"not installed: {', '.join(absent)}"))
    return findings


def _is_of(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def of_torch(report: Mapping[str, Any], wanted: Literal["auto", "cpu", "cuda"]) -> list[Finding]:
    """Torch and the GPUs.

    Args:
        report: see `ups.tools.torch_report`.
        wanted: the device of the configuration.
    """
    if "error" in report:
        found = f"does not work: {report['error']}"
        return [Finding("torch build", "problem", found, "install the environment with `make setup`")]
    cuda, driver = report["cuda"], report["driver"]
    build = Finding("torch build", "ok", f"for CUDA {cuda}" if cuda else "for CPUs")
    if cuda is None and driver is not None:
        fix = "install the CUDA build of torch"
        return [Finding("torch build", "problem", f"for CPUs, and there is a GPU (driver {driver})", fix)]
    if not report["devices"]:
        if wanted == "cuda":
            fix = "run on a machine with a GPU, or set execution.device: auto"
            return [build, Finding("GPU", "problem", report["problem"] or "none", fix)]
        if driver is not None:
            fix = "update the driver, or install a torch build for it"
            return [build, Finding("GPU", "problem", f"driver {driver}: {report['problem']}", fix)]
        return [build, Finding("GPU", "ok", "none; the CPU computes")]
    findings = [build]
    for device in report["devices"]:
        found = f"{device['name']}, {device['free_bytes'] / 1e9:.1f} of {device['total_bytes'] / 1e9:.1f} GB free, driver {driver}"
        if device["problem"]:
            fix = "install a torch build for this GPU"
            findings.append(Finding("GPU", "problem", f"{found}; {device['problem']}", fix))
        elif device["free_bytes"] < 0.5 * device["total_bytes"]:
            fix = "see with nvidia-smi who has its memory"
            findings.append(Finding("GPU", "warning", found, fix))
        else:
            findings.append(Finding("GPU", "ok", found))
    return findings


def of_server(url: str | None, answer: Answer | None, version: str | None) -> list[Finding]:
    """The Prefect server, and the clocks.

    Args:
        url, answer: None where none is named.
        version: of Prefect here; None where it is not installed.
    """
    if url is None or answer is None:
        return [Finding("Prefect server", "ok", "none is named; flows start one for themselves")]
    if answer.guarded:
        fix = "set PREFECT_API_AUTH_STRING to what the server has as PREFECT_SERVER_API_AUTH_STRING"
        return [Finding("Prefect server", "warning", f"{url} {answer.problem}", fix)]
    if answer.version is None:
        fix = "start it, or unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL`)"
        return [Finding("Prefect server", "problem", f"{url} {answer.problem}", fix)]
    found = f"{url}, version {answer.version}"
    if version is not None and answer.version != version:
        fix = f"install the same version on both: pip install prefect=={answer.version}"
        findings = [Finding("Prefect server", "warning", f"{found}, and {version} here", fix)]
    else:
        findings = [Finding("Prefect server", "ok", found)]
    if answer.ahead is not None:
        if abs(answer.ahead) <= _SECONDS_APART:
            findings.append(Finding("clock", "ok", f"{answer.ahead:+.1f} s at the server"))
        else:
            fix = "set the clocks by NTP (`timedatectl set-ntp true`)"
            findings.append(Finding("clock", "warning", f"the server's is {answer.ahead:+.0f} s off", fix))
    return findings


def of_port(port: int, *, taken: bool, answer: Answer | None) -> Finding:
    """Whether a server can be started here, or is there.

    answer: of what has the port.
    """
    what = f"port {port}"
    if not taken:
        return Finding(what, "ok", "free")
    if answer is not None and answer.version is not None:
        return Finding(what, "ok", f"a Prefect server, version {answer.version}")
    if answer is not None and answer.guarded:
        return Finding(what, "ok", "a Prefect server with a password")
    fix = "end what has it, or start the server at another: prefect server start --port"
    return Finding(what, "problem", "taken by something that is no Prefect server", fix)


def of_limits(files: int, locked_bytes: int, *, infiniband: bool) -> list[Finding]:
    """Limits of processes that are started from here; -1 is no limit.

    Args:
        files: that a process may have open.
        locked_bytes: memory that it may lock, which InfiniBand does.
    """
    enough = files == resource.RLIM_INFINITY or files >= _FILES
    fix = (
        "" if enough else f"ulimit -n {_FILES} before the command; for a unit of systemd LimitNOFILE={_FILES}"
    )
    opened = Finding("open files", "ok" if enough else "warning", _limit(files, 1, ""), fix)
    enough = locked_bytes == resource.RLIM_INFINITY or locked_bytes >= _LOCKED_BYTES or not infiniband
    fix = "" if enough else "ulimit -l unlimited; for a unit of systemd LimitMEMLOCK=infinity"
    words = _limit(locked_bytes, 1e6, " MB") + ("" if infiniband else "; only InfiniBand needs more")
    return [opened, Finding("locked memory", "ok" if enough else "warning", words, fix)]


def _limit(value: int, unit: float, name: str) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else f"{value / unit:.0f}{name}"


def of_space(free: int, needed: Mapping[str, int]) -> list[Finding]:
    """Room on the root's disk, for each stage behind those before it.

    needed: bytes that each stage will write; empty where nothing is known to be built.
    """
    if not needed:
        enough = free >= _LEAST_FREE_BYTES
        verdict = "problem" if not enough else "warning" if free < _FEW_FREE_BYTES else "ok"
        return [Finding("disk", verdict, f"{_size(free)} free", "" if verdict == "ok" else _FREE_SPACE)]
    findings, behind = [], 0.0
    for stage, size in needed.items():
        behind += MARGIN * size
        enough = behind <= free
        found = (
            f"{size / 1e6:.1f} MB, {behind / 1e6:.1f} MB so far with a margin, of {free / 1e6:.1f} MB free"
        )
        findings.append(
            Finding(f"disk for {stage}", "ok" if enough else "problem", found, "" if enough else _FREE_SPACE)
        )
    return findings


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


_FREE_SPACE = "free space (`ups cache gc --dry-run` shows what may go) or choose another --root"


def of_root(root: Path) -> Finding:
    """Whether a directory can be written to and its file system keeps locks; tried, and nothing is left."""
    existing = next(path for path in (root, *root.parents) if path.exists())
    fix = "make it a directory that you may write to, on a file system with locks (flock), or choose another --root"
    try:
        with (
            tempfile.NamedTemporaryFile(dir=existing, prefix=".doctor-") as mine,
            Path(mine.name).open("rb") as other,
        ):
            mine.write(b"written")
            mine.flush()
            os.fsync(mine.fileno())
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("root", "ok", f"{root}: can be written to, and has locks")
    except OSError as error:
        return Finding("root", "problem", f"{root}: {error.strerror or error}", fix)
    return Finding("root", "problem", f"{root}: two have the same lock (flock) at a time", fix)


def free_bytes(root: Path) -> int:
    """Of the disk that a directory is on, or will be."""
    return shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free


def of_code(commit: str | None, *, changed: bool) -> Finding:
    """The code's state.

    commit: None outside a checkout.
    """
    if commit is None:
        return Finding("code", "ok", "no git checkout; runs do not say which code made them")
    if changed:
        fix = "commit, so that what a run says of its code can be found again"
        return Finding("code", "warning", f"commit {commit[:12]}, with changes", fix)
    return Finding("code", "ok", f"commit {commit[:12]}")
