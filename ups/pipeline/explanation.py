"""Why a stage is a HIT or a MISS: its recipe against those of the sealed artifacts of that stage.

A digest says that something differs and not what; the recipes that manifests keep do. The nearest artifact is
the one with the fewest differing leaves (settings key by key, code, digests of inputs), the newest of those.
An input that differs is followed to the recipe of the input that the nearest artifact was made of, until
something differs that is no input: that is the cause, and the first one in the chain is told first.

What a recipe has of the code is one sum over the modules and library versions of a stage, so that a
difference cannot be traced to a module: for that, `code_identity` would have to be kept in the recipe as a
mapping of modules and libraries to sums (it would then be compared here leaf by leaf, like any mapping). The
run that built the nearest artifact tells more, where its directory is left: versions of libraries, and the
commit.
"""

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.metadata import version
from typing import Any

from ups.artifacts import Manifest, Store
from ups.artifacts.files import read_json
from ups.config.schema import StageName
from ups.errors import IntegrityError
from ups.pipeline.plan import PlannedStage

_SHORT = 12  # characters of a sum that are told
_SUM = 64
_LIBRARIES = ("torch", "numpy", "zarr")  # those that ups.artifacts.identity counts as code


class _Absent(Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT  # a recipe does not have the key; null is a value


@dataclass(frozen=True)
class Difference:
    """A leaf in which two recipes of a stage differ.

    Attributes:
        path: keys from the recipe's top, e.g. ("settings", "training", "learning_rate").
        before, after: in the sealed artifact, and wanted; ABSENT where there is no such key.
    """

    stage: str
    path: tuple[str, ...]
    before: Any
    after: Any

    @property
    def key(self) -> str:
        """Dotted, settings without their section: "training.learning_rate", "code", "inputs.download"."""
        return ".".join(self.path[1:] if self.path[0] == "settings" else self.path)

    def to_json(self) -> dict[str, Any]:
        """`before` and `after` are left out where they are absent."""
        values = {"before": self.before, "after": self.after}
        present = {name: value for name, value in values.items() if value is not ABSENT}
        return {"stage": self.stage, "key": self.key} | present

    def __str__(self) -> str:
        if self.path == ("code",):
            return "code"
        if self.before is ABSENT:
            return f"{self.key}: new, {_shown(self.after)}"
        if self.after is ABSENT:
            return f"{self.key}: gone, was {_shown(self.before)}"
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Origin:
    """Of the run that built an artifact: commit of its checkout (None: no checkout), library versions."""

    commit: str | None
    uncommitted: bool
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Explanation:
    """Why a stage is a HIT or a MISS.

    Attributes:
        reason: the plan's.
        nearest: the sealed artifact compared with; of a HIT the artifact itself; None if there is none.
        differences: leaves of this stage's recipe that differ, inputs apart.
        changed, equal: input stages whose digest differs, and is equal.
        causes: upstream leaves that make the inputs differ, the first of the chain first.
        gone: names (stage and short digest) of former inputs that are not in the store any more, so that nobody
            can tell what changed in them.
        unbuilt: upstream stages that are a MISS, though the recipe is equal, with the plan's reasons.
        code: what is known of a difference in code, this stage's or that of the first cause.
    """

    stage: StageName
    digest: str
    verdict: str
    reason: str
    nearest: Manifest | None = None
    differences: list[Difference] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    causes: list[Difference] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unbuilt: list[tuple[str, str]] = field(default_factory=list)
    code: str | None = None

    def to_json(self) -> dict[str, Any]:
        nearest = self.nearest
        return {
            "stage": self.stage,
            "digest": self.digest,
            "verdict": self.verdict,
            "reason": self.reason,
            "nearest": {"digest": nearest.digest, "created": nearest.created} if nearest else None,
            "differences": [difference.to_json() for difference in self.differences],
            "changed_inputs": self.changed,
            "equal_inputs": self.equal,
            "causes": [difference.to_json() for difference in self.causes],
            "inputs_gone": self.gone,
            "unbuilt": [{"stage": stage, "reason": reason} for stage, reason in self.unbuilt],
            "code": self.code,
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """Plain sentences, the verdict first."""
        if self.verdict == "HIT" or self.nearest is None:
            return f"{self.stage}: {self.verdict} {self.digest[:_SHORT]}: {self.reason}."
        name = f"{self.nearest.digest[:_SHORT]} ({self.nearest.created[:10]})"
        if self.nearest.digest == self.digest:
            return " ".join(
                [f"{self.stage}: MISS, though {name} has this recipe: {self.reason}.", *self._upstream()]
            )
        clauses = []
        if self.differences:
            clauses.append(f"differs in {', '.join(self._own(each) for each in self.differences)}")
        else:
            clauses.append("has equal settings and code")
        if self.changed:
            clauses.append(f"was made of another {_listed(self.changed)}")
        if self.equal:
            clauses.append(f"upstream {_listed(self.equal)} {'are' if len(self.equal) > 1 else 'is'} equal")
        first = f"{self.stage}: MISS: {self.reason}. Nearest artifact {name} {'; '.join(clauses)}."
        return " ".join([first, *self._upstream()])

    def _own(self, difference: Difference) -> str:
        return f"code ({self.code})" if difference.path == ("code",) and self.code else str(difference)

    def _upstream(self) -> Iterator[str]:
        if self.causes:
            stage = self.causes[0].stage
            mine = [each for each in self.causes if each.stage == stage]
            others = list(dict.fromkeys(each.stage for each in self.causes if each.stage != stage))
            known = not any(each.path == ("code",) for each in self.differences)
            told = [self._own(each) if known else str(each) for each in mine]
            more = f" (then also {_listed(others)})" if others else ""
            yield f"First upstream cause: {stage} differs in {', '.join(told)}{more}."
        if self.gone:
            are = "are" if len(self.gone) > 1 else "is"
            yield f"Its input{'s' * (len(self.gone) > 1)} {_listed(self.gone)} {are} gone, so what changed there is not known."
        if self.unbuilt:
            stage, reason = self.unbuilt[0]
            yield f"First upstream cause: {stage} is a MISS ({reason}); what is rebuilt equal counts again."


def explain(
    plan: Sequence[PlannedStage],
    sealed: Iterable[Manifest],
    *,
    origins: Mapping[str, Origin] | None = None,
    libraries: Mapping[str, str] | None = None,
) -> list[Explanation]:
    """Explain every stage of a plan.

    Args:
        plan: with all stages upstream of those it has.
        sealed: manifests of the store, of any stage.
        origins: per digest the run that built it, where known (see `read_origins`).
        libraries: versions that count today (see `present_libraries`).
    """
    comparison = _Comparison(plan, list(sealed), origins or {}, libraries or {})
    return [comparison.explain(stage) for stage in plan]


def leaves(recipe: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """The leaves of a recipe by the keys that lead to them; the name of the stage is none.

    A list of plain values is one leaf; one with mappings or lists in it is gone through by index. An empty
    mapping is a leaf.
    """
    return dict(_leaves((), {key: value for key, value in recipe.items() if key != "stage"}))


def differences(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Leaves in which two recipes differ, by key; 1 and 1.0 differ, as they do to a digest."""
    old, new = leaves(before), leaves(after)
    pairs = ((path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in sorted({*old, *new}))
    return [Difference(stage, path, was, now) for path, was, now in pairs if not _same(was, now)]


def read_origins(store: Store) -> dict[str, Origin]:
    """Per digest, of the newest run that built it, what its env.json says; runs without one are passed over.

    Raises:
        IntegrityError: a run's artifacts.json or env.json is damaged.
    """
    found = {}
    for pointers in sorted((store.root / "runs").glob("*/artifacts.json")):
        environment = pointers.with_name("env.json")
        if not environment.is_file():
            continue
        try:
            values = read_json(environment)
            origin = Origin(values["commit"], values["uncommitted_changes"], values["libraries"])
            built = [pointer["digest"] for pointer in read_json(pointers).values() if not pointer["hit"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"artifacts.json or env.json is damaged: {error!r}", where=str(pointers.parent)
            ) from error
        found |= dict.fromkeys(built, origin)
    return found


def present_libraries() -> dict[str, str]:
    """Versions of the libraries that count as code."""
    return {name: version(name) for name in _LIBRARIES}


class _Comparison:
    def __init__(
        self,
        plan: Sequence[PlannedStage],
        sealed: list[Manifest],
        origins: Mapping[str, Origin],
        libraries: Mapping[str, str],
    ) -> None:
        self.wanted: dict[str, PlannedStage] = {stage.name: stage for stage in plan}
        self.sealed = {(manifest.stage, manifest.digest): manifest for manifest in sealed}
        self.origins = origins
        self.libraries = libraries

    def explain(self, stage: PlannedStage) -> Explanation:
        nearest = self.nearest(stage)
        told = Explanation(stage.name, stage.digest, stage.verdict, stage.reason, nearest)
        if nearest is None or stage.verdict == "HIT":
            return told
        inputs: dict[str, str] = stage.recipe["inputs"]
        if nearest.digest == stage.digest:
            return replace(told, equal=list(inputs), unbuilt=self.unbuilt(stage))
        chain = list(self.wanted)
        former = sorted(set(self.upstream(stage.name, nearest)), key=lambda step: chain.index(step[0]))
        own = _without_inputs(differences(stage.name, nearest.recipe, stage.recipe))
        causes = [
            (digest, difference)
            for name, digest in former
            if (manifest := self.sealed.get((name, digest))) is not None
            for difference in _without_inputs(differences(name, manifest.recipe, self.wanted[name].recipe))
        ]
        first = [pair for pair in causes if pair[1].stage == causes[0][1].stage]
        code = next(
            (
                digest
                for digest, each in [*((nearest.digest, d) for d in own), *first]
                if each.path == ("code",)
            ),
            None,
        )
        changed = self.changed_inputs(stage.name, nearest)
        return replace(
            told,
            differences=own,
            changed=changed,
            equal=[name for name in inputs if name not in changed],
            causes=[difference for _, difference in causes],
            gone=[
                f"{name} {digest[:_SHORT]}" for name, digest in former if (name, digest) not in self.sealed
            ],
            code=None if code is None else self.about_code(code),
        )

    def nearest(self, stage: PlannedStage) -> Manifest | None:
        """Fewest differing leaves, then newest; the digest itself if it is sealed."""
        candidates = [manifest for (name, _), manifest in self.sealed.items() if name == stage.name]
        candidates.sort(key=lambda manifest: (manifest.created, manifest.digest), reverse=True)
        return min(
            candidates,
            key=lambda manifest: (
                manifest.digest != stage.digest,
                len(differences(stage.name, manifest.recipe, stage.recipe)),
            ),
            default=None,
        )

    def changed_inputs(self, name: str, former: Manifest) -> list[str]:
        """Inputs of a stage that `former` has with another digest, or has not at all."""
        old = former.recipe.get("inputs", {})
        return [i for i, digest in self.wanted[name].recipe["inputs"].items() if old.get(i) != digest]

    def upstream(self, name: str, former: Manifest) -> Iterator[tuple[str, str]]:
        """(stage, digest) of all that `former` was made of and is not wanted any more."""
        for changed in self.changed_inputs(name, former):
            digest = former.recipe.get("inputs", {}).get(changed)
            if digest is None:
                continue
            yield changed, digest
            if (manifest := self.sealed.get((changed, digest))) is not None:
                yield from self.upstream(changed, manifest)

    def unbuilt(self, stage: PlannedStage) -> list[tuple[str, str]]:
        """Ancestors that are a MISS, in the order of the chain."""
        needed = {stage.name}
        for name in reversed(self.wanted):
            if name in needed:
                needed |= set(self.wanted[name].recipe["inputs"])
        ancestors = (self.wanted[name] for name in self.wanted if name in needed and name != stage.name)
        return [(each.name, each.reason) for each in ancestors if each.verdict == "MISS"]

    def about_code(self, digest: str) -> str:
        """What its run tells of the code that an artifact was built by."""
        origin = self.origins.get(digest)
        if origin is None:
            return f"its modules, or the versions of {_listed(list(self.libraries) or list(_LIBRARIES))}"
        changed = [
            f"{name} {origin.libraries.get(name)} -> {now}"
            for name, now in self.libraries.items()
            if origin.libraries.get(name) != now
        ]
        if changed:
            return ", ".join(changed) + "; perhaps its modules too"
        at = f"commit {origin.commit[:_SHORT]}" if origin.commit else "code that is in no checkout"
        dirty = " with uncommitted changes" if origin.uncommitted else ""
        return f"its modules: built at {at}{dirty}; library versions are equal"


def _without_inputs(found: list[Difference]) -> list[Difference]:
    return [difference for difference in found if difference.path[0] != "inputs"]


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves((*path, str(index)), inner)
    else:
        yield path, value


def _same(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _shown(value: Any) -> str:
    """A value as a YAML file would have it, shortened."""
    if isinstance(value, str):
        is_sum = len(value) == _SUM and not set(value) - set("0123456789abcdef")
        return value[:_SHORT] if is_sum else value
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
