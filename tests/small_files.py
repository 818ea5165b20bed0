"""One small well-formed file per problem, for the tests of the reader, the writer and the checks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ups.data.layout import cell_centres
from ups.data.pdebench_writer import TrajectoryWriter, write_trajectories
from ups.problems import PROBLEMS, Boundary, Problem, ProblemName

ROWS, FRAMES, POINTS = 7, 5, 8


@dataclass(frozen=True, eq=False)
class Small:
    """What was written, as the writer takes it: primitive fields [n, t, *grid, C], t = 1 for a map."""

    problem: Problem
    fields: NDArray[np.float32]
    times: NDArray[np.float64] | None
    coordinates: tuple[NDArray[np.float64], ...]
    parameters: dict[str, float]
    boundary: Boundary

    @property
    def arguments(self) -> dict:
        return {
            "problem": self.problem.name,
            "times": self.times,
            "coordinates": self.coordinates,
            "parameters": self.parameters,
            "boundary": self.boundary,
        }

    @property
    def primitive(self) -> NDArray[np.float32]:
        """Fields [n, t, *grid, C] as they are read: a map has a first frame without what is not given."""
        if not self.problem.is_map:
            return self.fields
        given = np.array([field.given for field in self.problem.fields])
        return np.concatenate([np.where(given, self.fields, 0), self.fields], axis=1).astype(np.float32)

    def write(self, path: Path, **changes) -> Path:
        write_trajectories(path, self.fields, **(self.arguments | changes))
        return path

    def writer(self, path: Path, **changes) -> TrajectoryWriter:
        return TrajectoryWriter(path, **({"rows": ROWS} | self.arguments | changes))


def small(name: ProblemName, *, seed: int = 0, resolution: int = POINTS) -> Small:
    problem = PROBLEMS[name]
    grid = tuple(resolution + 2 * index for index in range(len(problem.axes)))  # axes differ in length
    frames = 1 if problem.is_map else FRAMES
    values = np.random.default_rng(seed).normal(size=(ROWS, frames, *grid, len(problem.fields)))
    for channel, field in enumerate(problem.fields):
        if field.positive:
            values[..., channel] = np.exp(0.3 * values[..., channel])
    return Small(
        problem=problem,
        fields=values.astype(np.float32),
        times=None if problem.is_map else 0.25 * np.arange(FRAMES),
        coordinates=tuple(
            cell_centres(points, domain) for points, domain in zip(grid, problem.domain, strict=True)
        ),
        parameters={parameter.name: 0.01 * (index + 1) for index, parameter in enumerate(problem.parameters)},
        boundary=problem.boundaries[-1],
    )
