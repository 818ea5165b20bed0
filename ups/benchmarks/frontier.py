"""Error against seconds per trajectory: the surrogate's rows, its peers, and our own solvers on several grids.

All forecast the same test trajectories on the same device with the same threads. Each may use them as suits it best: short
measurements decide between eager and compiled (`torch.compile`; of a surrogate the networks), and a solver on a CPU
has its rows solved side by side, a thread each. Then all are timed in turns, once in every round, so that what else the machine
does falls on all alike; the median over rounds counts. A row pays for everything that it calls: an ensemble for the operator's
forecast too. First calls, which compile and allocate, are not counted for anybody.

The error is the tables' headline: the mean over trajectories of the trajectory relative L2 against the truth of the test split at
its points. The solver on the truth's own grid is the truth, but for its steps: it is timed, for nothing costs more, and is no
point of the curve.
"""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn

from ups.benchmarks.break_even import Point, at_equal_error, break_even, pareto
from ups.benchmarks.coarse_solvers import COMPILED, CoarseSolver, Given, Solver, coarser_grids, solvers_of
from ups.benchmarks.data import side_by_side
from ups.benchmarks.race import Race, locked, networks, training_seconds
from ups.config import Configuration
from ups.data.dataset import load_datasets, read_description, stored_trajectories
from ups.evaluation.evaluation_set import EvaluationSet, evaluation_set
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, operator_forecaster, single_forecaster
from ups.evaluation.metrics import standard_error
from ups.evaluation.result_records import HEADLINE
from ups.evaluation.result_table import network_predictor
from ups.evaluation.surrogate import Surrogate, load_surrogate
from ups.losses.relative import relative_l2_per_field
from ups.models.codec import ProblemCodec
from ups.problems.ideal_gas import to_conserved
from ups.runtime.ranks import device_name, join_ranks

log = logging.getLogger(__name__)

SOLVER, SURROGATE, PEER = "solver", "surrogate", "peer"
PAYS, NEVER, NOT_KNOWN = "pays", "never", "not known"
SINGLE = "operator_single"
"""The operator without its average over symmetries: less accurate, and as many times cheaper as the group has elements."""

_PILOTS = 2  # calls that decide between two ways, after the first one
_SAME = 1e-3
"""Relative difference from which a compiled solver computes something else."""

Forecast = Callable[[Tensor], Tensor]
"""First frames [n, *grid, C], a solver's on the truth's grid, to forecasts [n, t, *points, C]."""
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Row:
    """What is timed and scored.

    Attributes:
        first: first frames [n, *grid, C] of the test trajectories, as it takes them.
        ways: by name, how it may be called: a function that makes one which has forecast nothing yet, for forecasts are
            remembered. The first way is scored.
        invested: seconds of the stages that it needs; 0 of solvers.
    """

    name: str
    kind: str
    first: Tensor
    ways: dict[str, Callable[[], Forecast]]
    invested: float = 0.0
    about: Record = field(default_factory=dict)


def measure_frontier(request: Mapping[str, Any]) -> Record:
    """The frontier that a request describes: {"configuration", "inputs" (directories by stage), "stages" (in their order), "stage_seconds",
    "problem", "cells", "batches", "repeats", "compile", "threads", "peers", "seconds", "directory"}. cells: None: the truth's halves.
    """
    configuration = Configuration.model_validate(request["configuration"])
    inputs = {stage: Path(path) for stage, path in request["inputs"].items()}
    name = request["problem"]
    peers = _Peers(configuration, inputs, request)
    with join_ranks(configuration.execution.device, request["threads"]) as ranks:
        dataset = load_datasets(inputs["download"], ("test",))[name]
        data = evaluation_set(
            name,
            dataset,
            "test",
            ranks.device,
            seed=configuration.seed,
            threads=request["threads"],
            initial_steps=configuration.evaluation.pdebench_initial_steps,
            mean=None,
        )
        solvers = _solver_rows(data, inputs["download"], request)
        rows = [*_surrogate_rows(data, inputs, configuration, request), *peers.rows(data), *solvers]
        records = [_scored(row, data) for row in rows]
        for batch in request["batches"]:
            for record, timed in zip(records, _timed(rows, batch, request["repeats"]), strict=True):
                record["seconds"][str(batch)] = timed
    setting = data.setting
    comparisons = [each for batch in request["batches"] for each in compared(records, batch)]
    return {
        "configuration": configuration.name,
        "problem": name,
        "dataset": setting.dataset,
        "data_version": setting.version,
        "metric": HEADLINE,
        "n_trajectories": len(data.truth),
        "frames": setting.frames,
        "resolution": list(setting.resolution),
        "truth_cells": solvers[-1].about["cells"],
        "device": device_name(ranks.device),
        "threads": request["threads"],
        "repeats": request["repeats"],
        "compile": request["compile"],
        "batches": request["batches"],
        "stages": [{"stage": each, "seconds": request["stage_seconds"][each]} for each in request["stages"]],
        "rows": records,
        "fronts": {str(batch): front(records, batch) for batch in request["batches"]},
        "comparisons": comparisons,
        "verdicts": [verdict(comparisons, batch) for batch in request["batches"]],
    }


def compared(records: Sequence[Record], batch: int) -> list[Record]:
    """Every row that was trained against the solver that is cheapest at its error; see `ups.benchmarks.break_even`."""
    curves: dict[str, list[Point]] = {}
    for record in records:
        if record["kind"] == SOLVER and not record["own_grid"]:
            curves.setdefault(record["model"], []).append(_point(record, batch))
    truth = next(_point(record, batch).seconds for record in records if record["own_grid"])
    table = []
    for record in records:
        if record["kind"] == SOLVER or not record["error"]:
            continue
        own = _point(record, batch)
        found = {name: at_equal_error(curve, own.error) for name, curve in curves.items()}
        # Where a solver does not reach the error, another one that does is asked first.
        solver, equal = min(found.items(), key=lambda item: (item[1].bound == "at least", item[1].seconds))
        count = break_even(record["invested_seconds"], equal.seconds, own.seconds)
        # On a coarser grid than the coarsest a solver takes less, on a finer one than the finest up to what the truth took.
        ends = {"at most": (0.0, equal.seconds), "at least": (equal.seconds, truth), "": (equal.seconds,) * 2}
        low, high = ends[equal.bound]
        known = PAYS if own.seconds < low else NEVER if own.seconds >= high else NOT_KNOWN
        table.append(
            {
                "model": record["model"],
                "batch": batch,
                "error": own.error,
                "seconds": own.seconds,
                "solver": solver,
                "solver_seconds": equal.seconds,
                "bound": equal.bound,
                "speedup": equal.seconds / own.seconds,
                "invested_seconds": record["invested_seconds"],
                "break_even": count if known == PAYS else None,
                "verdict": known,
            }
        )
    return table


def front(records: Sequence[Record], batch: int) -> list[Point]:
    """What no other row beats in both error and seconds, the truth's own grid left out."""
    return pareto([_point(record, batch) for record in records if record["error"] and not record["own_grid"]])


def verdict(comparisons: Sequence[Record], batch: int) -> Record:
    """{"batch", "verdict", "text"}: a sentence on the row that pays first or, where none is known to, comes nearest.

    Of rows whose error is within twice the least: what a linear map saves at a quarter of error is nobody's question.
    """
    rows = [row for row in comparisons if row["batch"] == batch]
    if not rows:
        return {"batch": batch, "verdict": NOT_KNOWN, "text": f"Batch {batch}: no forecast is finite"}
    least = min(row["error"] for row in rows)
    accurate = [row for row in rows if row["error"] <= 2 * least]
    best = min(accurate, key=lambda row: (row["break_even"] or math.inf, -row["speedup"]))
    bound = f"{best['bound']} " if best["bound"] else ""
    compared = (
        f"{best['model']} takes {best['seconds']:.3g} s per trajectory, {best['solver']} {bound}{best['solver_seconds']:.3g} s "
        f"for its error ({best['error']:.3g})"
    )
    counter = {"": "", "at least": "at most ", "at most": "at least "}[best["bound"]]
    text = {
        PAYS: f"{compared}: {bound}{best['speedup']:.3g} times as fast. Data and training, {best['invested_seconds']:.4g} s, "
        f"are paid for after {counter}{best['break_even'] or 0:,} trajectories",
        NEVER: f"never. {compared}, {counter}{1 / best['speedup']:.3g} times less",
        NOT_KNOWN: f"not known. {compared}, and no grid beyond that was measured",
    }[best["verdict"]]
    return {"batch": batch, "verdict": best["verdict"], "text": f"Batch {batch}: {text}"}


def _point(record: Record, batch: int) -> Point:
    return Point(record["error"], record["seconds"][str(batch)]["median"])


def _surrogate_rows(
    data: EvaluationSet, inputs: Mapping[str, Path], configuration: Configuration, request: Mapping[str, Any]
) -> list[_Row]:
    """Whatever the surrogate forecasts with, and the operator without its average."""
    problem, seconds = data.setting.problem, request["stage_seconds"]
    plain = load_surrogate(inputs, configuration)
    loaded = {"eager": plain}
    if request["compile"]:
        loaded["compiled"] = load_surrogate(inputs, configuration)
        for model in (
            loaded["compiled"].operator,
            loaded["compiled"].diffusion,
            loaded["compiled"].consistency,
        ):
            _compile(model)

    def ways(name: str) -> dict[str, Callable[[], Forecast]]:
        return {
            way: lambda surrogate=surrogate: _by_network(
                surrogate.codec.of(problem), _forecaster(surrogate, problem, name), data, configuration
            )
            for way, surrogate in loaded.items()
        }

    present = plain.forecasters(problem)
    names = [forecaster.name for forecaster in present]
    average = next(each for each in present if each.name == "operator").calls_per_step > 1
    if average:
        names.insert(names.index("operator") + 1, SINGLE)
    return [
        _Row(
            name,
            SURROGATE,
            data.truth[:, 0],
            ways(name),
            invested=sum(seconds[stage] for stage in stages_behind(name, request["stages"])),
            about={"members": _forecaster(plain, problem, name).members},
        )
        for name in names
    ]


def stages_behind(row: str, stages: list[str]) -> list[str]:
    """The stages that a row of the surrogate needs, of all trained ones in their order; what is not known needs all."""
    last = stages[-1]
    if row in {"linear", "operator", SINGLE}:
        last = "operator"
    elif row.startswith(("diffusion", "operator_dressed")):  # past errors are kept by the diffusion's stage
        last = "diffusion"
    return stages[: stages.index(last) + 1]


def _compile(model: nn.Module) -> None:
    getattr(model, "network", model).compile(dynamic=False)


def _forecaster(surrogate: Surrogate, problem: str, name: str) -> Forecaster:
    """A new one, that has forecast nothing yet."""
    if name == SINGLE:
        return single_forecaster(surrogate.operator, problem)
    return next(each for each in surrogate.forecasters(problem) if each.name == name)


def _by_network(
    codec: ProblemCodec, forecaster: Forecaster, data: EvaluationSet, configuration: Configuration
) -> Forecast:
    """The mean of a forecaster's members; as many states at a time as the configuration evaluates with."""
    predict = network_predictor(codec, forecaster, data, seed=configuration.evaluation.seed)
    at_once = max(1, configuration.evaluation.batch_size // forecaster.members)

    def run(first: Tensor) -> Tensor:
        parts = [predict(part).mean(dim=1) for part in first.split(at_once)]
        return torch.cat(parts).unflatten(2, data.setting.resolution)

    return run


class _Peers:
    """Peers of the race: trained before anything is timed, and kept for the next time."""

    def __init__(
        self, configuration: Configuration, inputs: Mapping[str, Path], request: Mapping[str, Any]
    ) -> None:
        self.configuration, self.trained = configuration, {}
        if not request["peers"]:
            return
        seconds = request["seconds"] or training_seconds(inputs["operator"])
        race = Race(configuration, inputs["download"], Path(request["directory"]))
        with locked(race):
            self.trained = {name: race.run(name, seconds, 1)[0] for name in request["peers"]}
        self.data_seconds = request["stage_seconds"]["download"]

    def rows(self, data: EvaluationSet) -> Iterator[_Row]:
        """One of each."""
        for name, trained in self.trained.items():
            model, codec = networks(trained, data)
            ways = {"eager": lambda model=model, codec=codec: self._forecast(model, codec, data)}
            yield _Row(
                name, PEER, data.truth[:, 0], ways, self.data_seconds + trained.seconds, {"members": 1}
            )

    def _forecast(self, model: Any, codec: ProblemCodec, data: EvaluationSet) -> Forecast:
        forecaster = operator_forecaster(OperatorForecasts(model, codec))
        return _by_network(codec, forecaster, data, self.configuration)


def _solver_rows(data: EvaluationSet, download: Path, request: Mapping[str, Any]) -> list[_Row]:
    """Every solver of the equation on every coarser grid, coarsest first, and last the first solver on the truth's."""
    described = read_description(download)[data.setting.problem]
    on_truths_grid = described | {"space_stride": 1, "variables": "primitive"}
    stored = stored_trajectories(download, on_truths_grid, ("test",))
    problem, rows = stored.about["problem"], stored.about["splits"]["test"]
    first = torch.from_numpy(stored.read(rows, frames=1)[:, 0]).to(data.truth.device)
    fine = first.shape[1]
    given = Given(problem, data.parameters, data.setting.boundary, data.time_step, data.setting.frames)

    def scored_variables(fields: Tensor) -> Tensor:
        return to_conserved(fields) if described["variables"] == "conserved" else fields

    grids = coarser_grids(fine, request["cells"])
    solvers = solvers_of(problem)
    threads = 1 if data.truth.is_cuda else request["threads"]

    def row(name: str, cells: int) -> _Row:
        def coarse(solve: Solver) -> CoarseSolver:
            return CoarseSolver(solve, given, fine, described["space_stride"], cells, data.truth.device)

        solved = {"eager": coarse(solvers[name])}
        if request["compile"] and solvers[name] in COMPILED:
            solved["compiled"] = coarse(torch.compile(solvers[name], dynamic=False))
        fields = solved["eager"].solved(first)
        errors = {
            reading: _error(scored_variables(solved["eager"].read(fields, reading)), data).mean().item()
            for reading in solved["eager"].readings
        }
        reading = min(errors, key=lambda name: errors[name])
        ways = {
            way: lambda solver=solver: _solve(
                lambda first: scored_variables(solver.read(solver.solved(first), reading)), threads
            )
            for way, solver in solved.items()
        }
        about = {"cells": cells, "own_grid": cells == fine, "reading": reading}
        return _Row(name, SOLVER, first, ways, about=about)

    return [*(row(name, cells) for name in solvers for cells in grids), row(next(iter(solvers)), fine)]


def _solve(part: Forecast, threads: int) -> Forecast:
    """As many parts of the rows side by side as there are threads."""

    def run(first: Tensor) -> Tensor:
        with _threads(1):
            return side_by_side(part, (first,), threads)

    return run


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Threads within an operation: of a solver one, for its operations are short."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scored(row: _Row, data: EvaluationSet) -> Record:
    """The record of a row, before it is timed."""
    make = next(iter(row.ways.values()))
    errors = _error(make()(row.first), data)
    log.info("%s %s: error %.3g", row.name, row.about.get("cells", ""), errors.mean())
    return {
        "model": row.name,
        "kind": row.kind,
        "error": _finite(errors.mean().item()),
        "standard_error": _finite(standard_error(errors)),
        "invested_seconds": row.invested,
        "seconds": {},
        "own_grid": False,
        **row.about,
    }


def _error(forecast: Tensor, data: EvaluationSet) -> Tensor:
    """Trajectory relative L2, mean over scored fields, [n]: the headline of the tables."""
    scored = data.setting.scored
    return relative_l2_per_field(forecast[..., scored], data.truth[:, 1:][..., scored]).mean(dim=-1).cpu()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _timed(rows: Sequence[_Row], batch: int, repeats: int) -> list[Record]:
    """Seconds per trajectory of every row, {"median", "low", "high", "way"}, for so many trajectories at once."""
    chosen: list[tuple[str, Callable[[], Forecast], Tensor]] = []
    seconds: list[list[float]] = [[] for _ in rows]
    torch.compiler.reset()
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # that a loop stays a loop is no news
    # One function is compiled for every grid, and all stay compiled while they are timed in turns. No more than that: it is
    # looked through at each call.
    with torch._dynamo.config.patch(recompile_limit=len(rows)):
        for row in rows:
            # Of fewer trajectories than the batch, some come twice.
            first = row.first[torch.arange(batch, device=row.first.device) % len(row.first)]
            way = _fastest(row, first)
            chosen.append((way, row.ways[way], first))
        for number in range(repeats):
            log.info("batch %d: round %d of %d", batch, number + 1, repeats)
            for taken, (_, make, first) in zip(seconds, chosen, strict=True):
                taken.append(_seconds(make(), first) / batch)
    return [
        {"median": statistics.median(taken), "low": min(taken), "high": max(taken), "way": way}
        for taken, (way, _, _) in zip(seconds, chosen, strict=True)
    ]


def _fastest(row: _Row, first: Tensor) -> str:
    """The way of a row that takes least time; the first call of each is not counted."""
    took: dict[str, float] = {}
    expected = None
    for way, make in row.ways.items():
        try:
            forecast = make()(first)
        except Exception as error:
            if way == "eager":
                raise
            # Compilers fail in any way, also where their program runs; the row stays, uncompiled, and says so.
            log.info("%s %s: cannot be compiled: %r", row.name, row.about.get("cells", ""), error)
            continue
        if expected is None:
            expected = forecast
        elif row.kind == SOLVER and not _same(forecast, expected):
            log.info("%s %s: compiled, it gives other numbers", row.name, row.about.get("cells", ""))
            continue
        took[way] = min(_seconds(make(), first) for _ in range(_PILOTS))
    log.info(
        "batch %d: %s %s %s", len(first), row.name, row.about.get("cells", ""),
        ", ".join(f"{way} {seconds / len(first):.3g} s" for way, seconds in took.items()),
    )  # fmt: skip
    return min(took, key=lambda way: took[way])


def _same(forecast: Tensor, expected: Tensor) -> bool:
    return bool((forecast - expected).norm() <= _SAME * expected.norm())


def _seconds(forecast: Forecast, first: Tensor) -> float:
    if first.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    forecast(first)
    if first.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
