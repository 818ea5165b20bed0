"""The plan: for every stage its key, as far as it can be known, and whether its artifact is there and counts.

A key is taken of the contents of inputs, and so of a stage behind one that is to be built it is not known yet: it may
turn out that nothing behind has to be built again.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from ups.artifacts import Artifact, Store
from ups.artifacts.files import REQUEST_FILE, read_json
from ups.artifacts.identity import code_identity, digest_of
from ups.artifacts.manifest import MANIFEST
from ups.config import Configuration
from ups.config.data import how_read
from ups.config.schema import DATA, STAGES
from ups.config.sizes import KeptShape
from ups.config.stage import LAYOUT
from ups.errors import ConfigurationError, IntegrityError
from ups.pipeline.graph import chain_to, stage_settings
from ups.pipeline.rebuild import ASKED_FOR, NOTHING, Rebuild
from ups.problems.generated import SPLITS, ProblemData


@dataclass(frozen=True)
class PlannedStage:
    """One row of the plan.

    Attributes:
        digest: key of the artifact; None as long as an input is to be built.
        derivation: what the key is taken of; None likewise.
        reason: why it is a HIT or a MISS; "after STAGE" where the key is not known.
        parts: keys of the trajectories that the download stage finds or makes.
    """

    name: str
    digest: str | None
    derivation: dict[str, Any] | None
    verdict: Literal["HIT", "MISS"]
    reason: str
    predicted_bytes: int
    parts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "digest": self.digest,
            "parts": list(self.parts),
            "verdict": self.verdict,
            "reason": self.reason,
            "predicted_bytes": self.predicted_bytes,
        }


def make_plan(
    configuration: Configuration, store: Store, until: str | None = None, rebuild: Rebuild = NOTHING
) -> list[PlannedStage]:
    """Keys and verdicts of all stages, or of one and what it needs. Builds nothing.

    Args:
        configuration: resolved: no `auto` is left.

    Raises:
        DataError: an input file is missing.
        ConfigurationError: the models do not fit the data that are there.
    """
    plan: list[PlannedStage] = []
    hits: dict[str, Artifact] = {}
    parts = derive_parts(configuration, store)
    missing_rows = missing_trajectories(configuration, store, parts)
    for name in chain_to(until):
        missing = [i for i in STAGES[name].inputs if i not in hits]
        if missing:
            digest = derivation = artifact = None
            reason = f"after {missing[-1]}"
        else:
            derivation = derive(name, configuration, hits, store)
            digest = digest_of(derivation)
            artifact, reason = check(store, name, digest, read=False, rebuild=rebuild)
        if artifact is None:
            shapes = kept_shapes(configuration, hits.get("download"))
            size = STAGES[name].bytes(configuration, shapes, missing_rows)
        else:
            hits[name] = artifact
            size = sum(each.manifest.total_bytes for each in (artifact, *store.parts(artifact)))
            if name == "download":
                require_fit(configuration, artifact)
        verdict = "HIT" if artifact else "MISS"
        own_parts = part_keys(parts) if name == "download" else ()
        plan.append(PlannedStage(name, digest, derivation, verdict, reason, size, own_parts))
    return plan


def derive(
    name: str, configuration: Configuration, inputs: Mapping[str, Artifact], store: Store
) -> dict[str, Any]:
    """What a stage's key is taken of: its settings, its code, and the contents of its inputs, not how these were made.

    An input that is built again with the same bytes changes no key behind it (early cutoff: Mokhov, Mitchell and
    Peyton Jones 2018, "Build systems a la carte", section 2.3).
    """
    stage = STAGES[name]
    derivation = {
        "stage": name,
        "settings": stage_settings(name, configuration, store.root),
        "code": code_identity(*stage.modules(configuration)),
        "inputs": {i: content_read(name, configuration, inputs[i]) for i in stage.inputs},
    }
    if stage.trains and configuration.execution.allow_layout_change:
        return _of_a_known_layout(derivation, store)
    return derivation


def _of_a_known_layout(derivation: dict[str, Any], store: Store) -> dict[str, Any]:
    """That of a training which is sealed or begun and differs in its layout at most; its own if there is none.

    A training that is moved keeps the key that it was begun under: the need to move comes after a training has begun. Rejected:
    keys without the layout, under which trainings that never moved would share what has other bits.
    """
    name = derivation["stage"]
    sealed = store.path(name, "any").parent.glob(f"*/{MANIFEST}")
    begun = store.work(name, "any").parent.glob(f"*/{REQUEST_FILE}")
    wanted, found = _without_layout(derivation), dict[str, dict[str, Any]]()
    for path in (*sorted(sealed), *sorted(begun)):
        # Removed meanwhile, damaged, or of an older schema: not one to go on with.
        with suppress(FileNotFoundError, IntegrityError, KeyError):
            other = read_json(path).get("derivation")
            if other and _without_layout(other) == wanted:
                found[digest_of(other)] = other
    if digest_of(derivation) in found:
        return derivation
    return next(iter(found.values()), derivation)


def _without_layout(derivation: dict[str, Any]) -> str:
    settings = derivation["settings"]
    rest = {key: value for key, value in settings["execution"].items() if key not in LAYOUT}
    return digest_of(derivation | {"settings": settings | {"execution": rest}})


def content_read(name: str, configuration: Configuration, artifact: Artifact) -> Any:
    """What a stage reads of an input: of trajectories some splits, and points that the configuration chooses."""
    if artifact.stage != "download":
        return artifact.manifest.content
    parts = artifact.manifest.parts
    return {
        problem: how_read(data)
        | {split: parts[f"{problem}/{split}"]["content"] for split in STAGES[name].splits(configuration)}
        for problem, data in configuration.problems.items()
    }


Parts = dict[str, dict[str, dict[str, Any]]]
"""By problem and split, what the key of its trajectories is taken of."""


def derive_parts(configuration: Configuration, store: Store) -> Parts:
    """Of the trajectories that the download stage finds or makes.

    They do not depend on the run's other problems: runs share them.
    """
    settings = stage_settings("download", configuration, store.root)["data"]
    return {
        name: {
            split: {
                "stage": DATA,
                "settings": settings[name]["source"] | settings[name]["splits"][split] | {"split": split},
                "code": code_identity(data.declaration, *data.source_modules),
                "inputs": {},
            }
            for split in SPLITS
        }
        for name, data in configuration.problems.items()
    }


def part_keys(parts: Parts) -> tuple[str, ...]:
    """Of all problems and splits."""
    return tuple(digest_of(derivation) for splits in parts.values() for derivation in splits.values())


def missing_trajectories(configuration: Configuration, store: Store, parts: Parts) -> dict[str, int]:
    """By problem, how many are still to be made."""
    return {
        name: sum(
            getattr(configuration.problems[name].counts, split)
            for split, derivation in splits.items()
            if not store.path(DATA, digest_of(derivation)).is_dir()
        )
        for name, splits in parts.items()
    }


def check(
    store: Store, name: str, digest: str, *, read: bool, rebuild: Rebuild = NOTHING
) -> tuple[Artifact | None, str]:
    """The artifact if it is sealed and intact, and the reason for the verdict.

    read: read its bytes, as everybody does who goes on with it. A plan does so only where somebody has written to
        the artifact since they were read.
    """
    try:
        artifact = store.find(name, digest)
        if artifact is None:
            return None, _why_absent(store, name, digest)
        if read or not store.is_unchanged(artifact):
            store.verify(artifact)
    except IntegrityError as error:
        return None, f"damaged: {error}"
    if rebuild.wants(artifact):
        return None, ASKED_FOR
    return artifact, f"sealed {artifact.manifest.created}"


def kept_shapes(configuration: Configuration, download: Artifact | None) -> dict[str, KeptShape]:
    """What is kept of the trajectories of each problem: as in the data if they are there, else as expected.

    Where only a file knows, PDEBench's layouts are expected: 201 frames on 1024 points, a map on 128 x 128.
    """
    if download is not None:
        kept = download.manifest.summary["problems"]
        return {name: KeptShape(shape["frames"], tuple(shape["grid"])) for name, shape in kept.items()}
    return {name: _expected_shape(data) for name, data in configuration.problems.items()}


def _expected_shape(data: ProblemData) -> KeptShape:
    grid, frames = data.kept_grid, data.kept_frames
    if grid is None:
        points = 1024 if len(data.problem.axes) == 1 else 128
        grid = (max(1, points // getattr(data, "space_stride", 1)),) * len(data.problem.axes)
    available = -(-201 // getattr(data, "time_stride", 1))
    return KeptShape(min(available, frames or available), grid)


def require_fit(configuration: Configuration, download: Artifact) -> None:
    """Check that the models of a configuration can work on the trajectories of a download artifact, and be scored on them.

    The schema has checked what it could; grid, boundary and times of a file are known only when it was read, and the
    artifact may have been made for another model.

    Raises:
        ConfigurationError: they cannot.
    """
    shapes = kept_shapes(configuration, download)
    problems = [configuration.grid_problem(name, shape.grid, shape.frames) for name, shape in shapes.items()]
    problems += [
        configuration.evaluation.problem_of(name, configuration.problems[name], shape.frames)
        for name, shape in shapes.items()
    ]
    if (ttc := configuration.evaluation.ttc) is not None:
        for name, kept in download.manifest.summary["problems"].items():
            boundary, interval, frames = (kept[key] for key in ("boundary", "frame_interval", "frames"))
            problem = ttc.problem_of(configuration.problems[name], boundary, interval, frames)
            problems.append(problem and f"evaluation.ttc.{problem}")
    problems.append(configuration.leads_problem({name: shape.frames for name, shape in shapes.items()}))
    for problem in filter(None, problems):
        raise ConfigurationError(problem, where=f"the configuration {configuration.name}")


def _why_absent(store: Store, name: str, digest: str) -> str:
    work = store.work(name, digest)
    if (work / "checkpoints").is_dir() and any((work / "checkpoints").iterdir()):
        return "unfinished: resumes from a checkpoint"
    if any(path.parent.name == name for path in store):
        return "no artifact of this configuration, code and inputs"
    return "never built"
