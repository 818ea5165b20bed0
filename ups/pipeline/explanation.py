"""Why a stage is a HIT or a MISS: what its derivation is, beside that of an artifact that was built before.

It is compared with the artifact of the newest run of the same configuration, which is what somebody means who asks
why it is not used again; where there is none, with the nearest of that stage: the one with the fewest differing
settings and inputs, the newest of those. An input of other content is followed no further, for the input's own row
tells what changed in it.
"""

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ups.artifacts import Manifest
from ups.artifacts.files import read_json
from ups.errors import IntegrityError
from ups.pipeline.plan import PlannedStage

_SHORT = 12  # characters of a sum that are shown
_SUM = 64
_MODULES, _NAMED = ("code", "modules"), 4


class _Absent(Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT  # a derivation does not have the key; null is a value


@dataclass(frozen=True)
class Difference:
    """A leaf in which two derivations of a stage differ.

    Attributes:
        path: keys from the derivation's top, e.g. ("settings", "training", "learning_rate").
        before, after: in the sealed artifact, and wanted; ABSENT where there is no such key.
    """

    path: tuple[str, ...]
    before: Any
    after: Any

    @property
    def key(self) -> str:
        """Dotted, settings without their section: "training.learning_rate", "code.libraries.torch"."""
        return ".".join(self.path[1:] if self.path[0] == "settings" else self.path)

    def to_json(self) -> dict[str, Any]:
        """`before` and `after` are left out where they are absent."""
        values = {"before": self.before, "after": self.after}
        return {"key": self.key} | {name: value for name, value in values.items() if value is not ABSENT}

    def __str__(self) -> str:
        if self.before is ABSENT:
            return f"{self.key}: new, {_shown(self.after)}"
        if self.after is ABSENT:
            return f"{self.key}: gone, was {_shown(self.before)}"
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Explanation:
    """Why a stage is a HIT or a MISS.

    Attributes:
        digest: None where it is not known yet.
        reason: the plan's.
        compared: the sealed artifact compared with; None if there is none, and of a HIT.
    """

    stage: str
    digest: str | None
    verdict: str
    reason: str
    compared: Manifest | None = None
    differences: list[Difference] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        other = self.compared
        return {
            "stage": self.stage,
            "digest": self.digest,
            "verdict": self.verdict,
            "reason": self.reason,
            "compared": {"digest": other.digest, "created": other.created} if other else None,
            "differences": [difference.to_json() for difference in self.differences],
        }

    def lines(self) -> Iterator[str]:
        """The verdict, then a line for each difference; modules that differ share one."""
        digest = f" {self.digest[:_SHORT]}" if self.digest else ""
        yield f"{self.stage}: {self.verdict}{digest}: {self.reason}"
        if self.compared is not None:
            yield f"  {self.compared.digest[:_SHORT]} of {self.compared.created[:10]} differs in"
            modules = [each.path[2] for each in self.differences if each.path[:2] == _MODULES]
            if modules:
                more = f" and {len(modules) - _NAMED} more" if len(modules) > _NAMED else ""
                yield f"    code of {', '.join(modules[:_NAMED])}{more}"
            yield from (f"    {each}" for each in self.differences if each.path[:2] != _MODULES)


def explain(
    plan: Sequence[PlannedStage], sealed: Iterable[Manifest], *, newest: Mapping[str, str]
) -> list[Explanation]:
    """Explain every stage of a plan.

    Args:
        sealed: manifests of the store, of any stage.
        newest: by stage, digests of the newest run of the configuration (see `newest_digests`).
    """
    manifests = list(sealed)
    return [
        _explain(stage, [each for each in manifests if each.stage == stage.name], newest.get(stage.name))
        for stage in plan
    ]


def _explain(stage: PlannedStage, candidates: list[Manifest], preferred: str | None) -> Explanation:
    plain = Explanation(stage.name, stage.digest, stage.verdict, stage.reason)
    wanted, others = stage.derivation, [each for each in candidates if each.digest != stage.digest]
    damaged = len(others) < len(candidates)
    if stage.verdict == "HIT" or wanted is None or damaged or not others:
        return plain
    others.sort(key=lambda each: (each.created, each.digest), reverse=True)
    found = {each.digest: differences(each.derivation, wanted) for each in others}
    nearest = min(others, key=lambda each: (each.digest != preferred, _distance(found[each.digest])))
    return Explanation(plain.stage, plain.digest, plain.verdict, plain.reason, nearest, found[nearest.digest])


def _distance(found: list[Difference]) -> int:
    """Leaves that differ; all modules and libraries are one."""
    return len({each.path if each.path[0] != "code" else "code" for each in found})


def leaves(derivation: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """The leaves of a derivation by the keys that lead to them; the name of the stage is none.

    A list of plain values is one leaf; one with mappings or lists in it is gone through by index. An empty
    mapping is a leaf.
    """
    return dict(_leaves((), {key: value for key, value in derivation.items() if key != "stage"}))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Leaves in which two derivations differ, by key; 1 and 1.0 differ, as they do to a digest."""
    old, new = leaves(before), leaves(after)
    pairs = ((path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in sorted({*old, *new}))
    return [Difference(path, was, now) for path, was, now in pairs if not _same(was, now)]


def newest_digests(runs: Path, configuration: str) -> dict[str, str]:
    """By stage, what the newest run of a configuration that reached it points to.

    Raises:
        IntegrityError: a run's artifacts.json is damaged.
    """
    found: dict[str, str] = {}
    for pointers in sorted(runs.glob(f"????????T??????Z-{configuration}-????????/artifacts.json")):
        try:
            found |= {stage: pointer["digest"] for stage, pointer in read_json(pointers).items()}
        except FileNotFoundError:  # the run was deleted meanwhile
            continue
        except (AttributeError, KeyError, TypeError) as error:
            raise IntegrityError(f"holds no pointers: {error!r}", where=str(pointers)) from error
    return found


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        value = {str(index): element for index, element in enumerate(value)}
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    else:
        yield path, value


def _same(first: Any, second: Any) -> bool:
    if first is ABSENT or second is ABSENT:
        return first is second
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:_SHORT] if len(value) == _SUM else value
    return reprlib.repr(value) if isinstance(value, list | dict) else json.dumps(value)
