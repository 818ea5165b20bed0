"""Small caches of three problems, built by the stage's own code from trajectories in memory."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tiny import LATENT_DIM, LINE, SQUARE, build, describe, single_rank
from torch import Tensor

from ups.data.cache_source import CacheSource, source_of_dataset
from ups.data.dataset import Dataset
from ups.data.layout import cell_centres
from ups.models.autoencoder import Autoencoder
from ups.models.build import CODEC_FILE, Description, load_model
from ups.models.codec import Codec
from ups.models.shape import ProblemShape
from ups.problems import PROBLEMS, ProblemName
from ups.runtime.ranks import Ranks
from ups.stages.cache_encode import build_cache

SHAPES = {
    "waves": LINE,
    "flow": ProblemShape(
        equation="compressible1d", grid=(32,), tokens=(4,), scored=(0, 1, 2), boundary="outflow"
    ),
    "map": SQUARE,
}
"""Names of a configuration are the user's and not those of the equations."""

_EQUATIONS: dict[str, tuple[ProblemName, int]] = {
    "waves": ("burgers1d", 5),
    "flow": ("compressible1d", 4),
    "map": ("darcy2d", 2),
}
ROWS = {"waves": 11, "flow": 5, "map": 7}
TRAJECTORIES_PER_CHUNK = 4


def dataset(name: str, *, rows: int | None = None, seed: int = 0) -> Dataset:
    """Random trajectories of one of the problems: the first two rows are validation, the next test."""
    equation, frames = _EQUATIONS[name]
    problem, shape, count = PROBLEMS[equation], SHAPES[name], rows or ROWS[name]
    generator = np.random.default_rng(seed)
    fields = 0.5 + generator.standard_normal((count, frames, *shape.grid, shape.channels)).astype(np.float32)
    known = np.ones((frames, shape.channels), dtype=bool)
    if problem.is_map:
        known[0] = [field.given for field in problem.fields]
        fields[:, 0, ..., ~known[0]] = 0
    numbers = np.arange(count)
    return Dataset(
        problem=problem,
        fields=fields,
        names=tuple(field.name for field in problem.fields),
        known=known,
        times=0.1 * np.arange(frames),
        coordinates=tuple(
            cell_centres(points, domain) for points, domain in zip(shape.grid, problem.domain, strict=True)
        ),
        parameters={parameter.name: 0.5 for parameter in problem.parameters},
        boundary=shape.boundary,
        splits={"validation": numbers[:2], "test": numbers[2:3], "train": numbers[3:]},
        rows=1000 + 3 * numbers,
        title=f"{equation} for tests",
        version="random",
    )


def datasets(*names: str, seed: int = 0) -> dict[str, Dataset]:
    """Of the named problems, or of all."""
    return {name: dataset(name, seed=seed) for name in names or SHAPES}


def autoencoder(of: dict[str, Dataset], *, seed: int = 0) -> tuple[Autoencoder, Description]:
    """An autoencoder of random weights, and its description with the statistics of the fields."""
    statistics = {}
    for name, data in of.items():
        train = data.split("train").reshape(-1, len(data.names)).astype(np.float64)
        statistics[name] = {"field_mean": train.mean(0).tolist(), "field_deviation": train.std(0).tolist()}
    shapes = {name: SHAPES[name] for name in of}
    model = build("autoencoder", shapes=shapes, seed=seed)
    description = describe("autoencoder", shapes=shapes) | {"statistics": statistics}
    return cast(Autoencoder, model.eval()), description


def build_small_cache(
    directory: Path,
    of: dict[str, Dataset] | None = None,
    *,
    seed: int = 0,
    ranks: Ranks | None = None,
    sources: dict[str, CacheSource] | None = None,
    **changes: Any,
) -> tuple[Path, dict[str, Any]]:
    """Build in `directory`, and return the artifact and the stage's summary. seed: of the encoder's weights."""
    of = datasets() if of is None else of
    model, description = autoencoder(of, seed=seed)
    settings: dict[str, Any] = {
        "threads": 1,
        "trajectories_per_chunk": TRAJECTORIES_PER_CHUNK,
        "stored": True,
        "encoder": "e" * 64,
        "dataset": "d" * 64,
    }
    summary = build_cache(
        sources or {name: source_of_dataset(data) for name, data in of.items()},
        model,
        description,
        output=directory / "output",
        work=directory,
        ranks=ranks or single_rank(),
        **(settings | changes),
    )
    return directory / "output", summary


def codec(artifact: Path) -> Codec:
    """The codec beside a cache."""
    model, _ = load_model(artifact / CODEC_FILE)
    return cast(Codec, model)


@torch.no_grad()
def encoded(codec: Codec, name: str, data: Dataset) -> Tensor:
    """Standardised latents [n, t, K, d] of all trajectories, float32, trajectory by trajectory."""
    known, about = torch.from_numpy(data.known), {"time_step": data.time_step, "parameters": data.parameters}
    return torch.cat(
        [
            codec.of(name).encode_trajectories(torch.from_numpy(fields)[None], known, **about)
            for fields in data.fields
        ]
    )


def contents(artifact: Path) -> dict[str, bytes]:
    """Every file of an artifact."""
    return {
        str(path.relative_to(artifact)): path.read_bytes() for path in artifact.rglob("*") if path.is_file()
    }


__all__ = ["LATENT_DIM", "SHAPES", "TRAJECTORIES_PER_CHUNK"]
