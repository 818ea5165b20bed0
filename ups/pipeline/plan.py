"""The plan: for every stage its digest, and whether its artifact is there and counts."""

from dataclasses import dataclass
from typing import Any, Literal

from ups.artifacts import Artifact, Store
from ups.artifacts.identity import code_identity, digest_of
from ups.config import Configuration
from ups.config.data import ProblemData
from ups.config.schema import StageName
from ups.errors import ConfigurationError, IntegrityError
from ups.pipeline.graph import GRAPH, chain_to
from ups.pipeline.prediction import KeptShape, predicted_bytes


@dataclass(frozen=True)
class PlannedStage:
    """One row of the plan; `reason` says why it is a HIT or a MISS."""

    name: StageName
    digest: str
    recipe: dict[str, Any]
    verdict: Literal["HIT", "MISS"]
    reason: str
    predicted_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "digest": self.digest,
            "verdict": self.verdict,
            "reason": self.reason,
            "predicted_bytes": self.predicted_bytes,
        }


def make_plan(
    configuration: Configuration, store: Store, until: StageName = "evaluate"
) -> list[PlannedStage]:
    """Digests and verdicts of all stages up to `until`. Reads the store, changes nothing in it.

    Args:
        configuration: resolved: no `auto` is left.

    Raises:
        DataError: an input file is missing.
        ConfigurationError: the models do not fit the data that are there.
    """
    recipes = make_recipes(configuration, store, until)
    plan: list[PlannedStage] = []
    hits: dict[StageName, Artifact] = {}
    for name, recipe in recipes.items():
        digest = digest_of(recipe)
        artifact, reason = check(store, name, digest, {i: hits.get(i) for i in GRAPH[name].inputs})
        if artifact is None:
            size = predicted_bytes(name, configuration, kept_shapes(configuration, hits.get("download")))
        else:
            hits[name] = artifact
            size = artifact.manifest.total_bytes
            if name == "download":
                require_fit(configuration, artifact)
        plan.append(PlannedStage(name, digest, recipe, "HIT" if artifact else "MISS", reason, size))
    return plan


def make_recipes(
    configuration: Configuration, store: Store, until: StageName = "evaluate"
) -> dict[StageName, dict[str, Any]]:
    """What each stage's digest is taken of: settings, code identity, digests of inputs."""
    recipes: dict[StageName, dict[str, Any]] = {}
    for name in chain_to(until):
        stage = GRAPH[name]
        recipes[name] = {
            "stage": name,
            "settings": stage.settings(configuration, store.root),
            "code": code_identity(stage.module),
            "inputs": {i: digest_of(recipes[i]) for i in stage.inputs},
        }
    return recipes


def check(
    store: Store, name: StageName, digest: str, inputs: dict[StageName, Artifact | None]
) -> tuple[Artifact | None, str]:
    """The artifact if it may be used, and the reason for the verdict.

    It may if it is sealed, intact by the fast sums, and made of inputs with the content of today's.
    """
    try:
        artifact = store.find(name, digest)
        if artifact is None:
            return None, _why_absent(store, name, digest)
        store.verify(artifact)
    except IntegrityError as error:
        return None, f"damaged: {error}"
    for input_name, present in inputs.items():
        if present is None:
            return None, f"input {input_name} is to be built"
        if artifact.manifest.inputs[input_name]["content"] != present.manifest.content:
            return None, f"input {input_name} was rebuilt and came out different"
    return artifact, f"sealed {artifact.manifest.created}"


def kept_shapes(configuration: Configuration, download: Artifact | None) -> dict[str, KeptShape]:
    """What is kept of the trajectories of each problem: as in the data if they are there, else as expected.

    Where only a file knows, PDEBench's layouts are expected: 201 frames on 1024 points, a map on 128 x 128.
    """
    if download is not None:
        kept = download.manifest.summary["problems"]
        return {name: KeptShape(told["frames"], tuple(told["grid"])) for name, told in kept.items()}
    return {name: _expected_shape(data) for name, data in configuration.problems.items()}


def _expected_shape(data: ProblemData) -> KeptShape:
    grid, frames = data.kept_grid, data.kept_frames
    if grid is None:
        points = 1024 if len(data.problem.axes) == 1 else 128
        grid = (max(1, points // getattr(data, "space_stride", 1)),) * len(data.problem.axes)
    available = -(-201 // getattr(data, "time_stride", 1))
    return KeptShape(min(available, frames or available), grid)


def require_fit(configuration: Configuration, download: Artifact) -> None:
    """Check that the models of a configuration can work on the trajectories of a download artifact.

    The schema has checked what it could; the grid of a file is known only when it was read, and the artifact
    may have been made for another model.

    Raises:
        ConfigurationError: they cannot.
    """
    for name, shape in kept_shapes(configuration, download).items():
        if problem := configuration.misfit(name, shape.grid, shape.frames):
            raise ConfigurationError(problem, where=f"the configuration {configuration.name}")


def _why_absent(store: Store, name: StageName, digest: str) -> str:
    work = store.work(name, digest)
    if (work / "checkpoints").is_dir() and any((work / "checkpoints").iterdir()):
        return "unfinished: resumes from a checkpoint"
    if any(path.parent.name == name for path in store):
        return "no artifact of this configuration, code and inputs"
    return "never built"
