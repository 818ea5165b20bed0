"""Error against seconds per trajectory: the surrogate's rows, its peers, and our own solvers on several grids.

All forecast the same test trajectories on the same device with the same threads. Each may use them as suits it best: short
measurements decide between eager and compiled (`torch.compile`; of a surrogate the networks), and a solver on a CPU
has its rows solved side by side, a thread each. Then all are timed in turns, once in every round, so that what else the machine
does falls on all alike; the median over rounds counts. A row pays for everything that it calls: an ensemble for the operator's
forecast too. First calls, which compile and allocate, are not counted for anybody.

The error is the tables' headline: the mean over trajectories of the trajectory relative L2 against the truth of the test split at
its points. Of generated data the solver on the truth's own grid is the truth, but for its steps: it is timed, for nothing costs
more, and is no point of the curve. The truth of a file was made by another solver: ours is charged with what that does otherwise,
and has the stored grid as one more point.
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
from ups.errors import NotFiniteError
from ups.evaluation.conditioning import ROW as CONDITIONED
from ups.evaluation.conditioning import Conditioner, Fit, fit
from ups.evaluation.evaluation_set import EvaluationSet, evaluation_set
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, operator_forecaster, single_forecaster
from ups.evaluation.metrics import standard_error
from ups.evaluation.result_records import HEADLINE
from ups.evaluation.result_table import network_predictor
from ups.evaluation.surrogate import Surrogate, load_surrogate
from ups.losses.relative import relative_l2_per_field
from ups.models.codec import ProblemCodec
from ups.problems.generated import Generated
from ups.problems.ideal_gas import to_conserved
from ups.runtime.ranks import device_name, join_ranks, make_compiler_deterministic

log = logging.getLogger(__name__)

SOLVER, SURROGATE, PEER = "solver", "surrogate", "peer"
PAYS, NEVER, NOT_KNOWN = "pays", "never", "not known"
SINGLE = "operator_single"
"""The operator without its average over symmetries: less accurate, and as many times cheaper as the group has elements."""

_PILOTS = 2  # calls that decide between two ways, after the first one
_SAME, _SAME_PART, _ROUNDING = 1e-3, 0.1, 1e-5
"""A compiled row computes something else from this relative difference, or from this part of its error, but for rounding."""

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

    Raises:
        ConfigurationError: there is no such grid, or no solver; before peers are trained.
        NotFiniteError: no row is finite.
    """
    configuration = Configuration.model_validate(request["configuration"])
    inputs = {stage: Path(path) for stage, path in request["inputs"].items()}
    name, conditioning = request["problem"], configuration.evaluation.conditioning
    generated = isinstance(configuration.problems[name], Generated)
    solvers = _Solvers(inputs["download"], request, generated=generated)
    peers = _Peers(configuration, inputs, request)
    with join_ranks(configuration.execution.device, request["threads"]) as ranks:
        splits = ("test",) if conditioning is None else ("test", "validation")
        dataset = load_datasets(inputs["download"], splits)[name]

        def scored_on(split: str, most: int | None = None) -> EvaluationSet:
            return evaluation_set(
                name,
                dataset,
                split,
                ranks.device,
                seed=configuration.seed,
                threads=request["threads"],
                initial_steps=configuration.evaluation.pdebench_initial_steps,
                mean=None,
                most=most,
            )

        data = scored_on("test")
        surrogates = _surrogates(inputs, configuration, request)
        rows = _surrogate_rows(data, surrogates, configuration, request)
        if conditioning is not None:
            validation = scored_on("validation", conditioning.fitted_on)
            rows.append(_conditioned_row(data, validation, surrogates, configuration, request))
        rows += [*peers.rows(data), *solvers.rows(data)]
        records = [_scored(row, data) for row in rows]
        if not any(record["error"] for record in records if not record["own_grid"]):
            raise NotFiniteError(f"no forecast of {name} is finite, and no solver's result")
        for batch in request["batches"]:
            for record, timed in zip(records, _timed(rows, records, batch, request["repeats"]), strict=True):
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
        "truth_cells": solvers.fine,
        "generated": generated,
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
    """Every row that was trained against the solver that is cheapest at its error; see `ups.benchmarks.break_even`.

    What is not finite is compared with nothing.
    """
    curves: dict[str, list[Point]] = {}
    for record in records:
        if record["kind"] == SOLVER and record["error"] and not record["own_grid"]:
            curves.setdefault(record["model"], []).append(_point(record, batch))
    # What the truth of a file would take is not known.
    truth = next((_point(record, batch).seconds for record in records if record["own_grid"]), math.inf)
    table = []
    for record in records:
        if record["kind"] == SOLVER or not record["error"] or not curves:
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
        text = f"Batch {batch}: no forecast is finite, or no solver's result"
        return {"batch": batch, "verdict": NOT_KNOWN, "text": text}
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


def _surrogates(
    inputs: Mapping[str, Path], configuration: Configuration, request: Mapping[str, Any]
) -> dict[str, Surrogate]:
    """By way, eager first."""
    loaded = {"eager": load_surrogate(inputs, configuration)}
    if request["compile"]:
        make_compiler_deterministic()
        loaded["compiled"] = load_surrogate(inputs, configuration)
        for model in (
            loaded["compiled"].operator,
            loaded["compiled"].diffusion,
            loaded["compiled"].consistency,
        ):
            _compile(model)
    return loaded


def _surrogate_rows(
    data: EvaluationSet,
    loaded: Mapping[str, Surrogate],
    configuration: Configuration,
    request: Mapping[str, Any],
) -> list[_Row]:
    """Whatever the surrogate forecasts with, and the operator without its average."""
    problem, plain = data.setting.problem, loaded["eager"]

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
            invested=_invested(name, request),
            about={"members": _forecaster(plain, problem, name).members},
        )
        for name in names
    ]


def _conditioned_row(
    data: EvaluationSet,
    validation: EvaluationSet,
    loaded: Mapping[str, Surrogate],
    configuration: Configuration,
    request: Mapping[str, Any],
) -> _Row:
    """The row `ttc`, as the evaluation makes it. It pays for the operator's forecast, candidates, scores and selection, and its
    fit on validation trajectories was invested."""
    settings = configuration.evaluation.conditioning
    assert settings is not None

    def conditioner(surrogate: Surrogate, of: EvaluationSet) -> Conditioner:
        return Conditioner(surrogate, of.inputs, configuration.evaluation)

    started = time.perf_counter()
    fitted = fit(conditioner(loaded["eager"], validation), validation.truth)
    took = time.perf_counter() - started
    ways = {
        way: lambda surrogate=surrogate: _conditioned(conditioner(surrogate, data), fitted, data)
        for way, surrogate in loaded.items()
    }
    last = "consistency" if "consistency" in settings.models else "diffusion"
    invested = _invested(last, request) + took
    return _Row(CONDITIONED, SURROGATE, data.truth[:, 0], ways, invested, {"members": 1})


def _conditioned(conditioner: Conditioner, fitted: Fit, data: EvaluationSet) -> Forecast:
    """What the selection makes of scored candidates, as many trajectories at a time as the evaluation takes."""

    @torch.no_grad()
    def run(first: Tensor) -> Tensor:
        parts = [
            conditioner.conditioned(conditioner.candidates(part), fitted)
            for part in first.split(conditioner.batch)
        ]
        return torch.cat(parts).unflatten(2, data.setting.resolution)

    return run


def _invested(row: str, request: Mapping[str, Any]) -> float:
    return sum(request["stage_seconds"][stage] for stage in stages_behind(row, request["stages"]))


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
    predict = network_predictor(codec, forecaster, data.inputs, seed=configuration.evaluation.seed)
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


class _Solvers:
    """Every solver of the equation on every coarser grid, coarsest first.

    Of generated data the last row is the first solver on the truth's grid; of a file's, that grid is every solver's finest.
    """

    def __init__(self, download: Path, request: Mapping[str, Any], *, generated: bool) -> None:
        self.request, self.generated = request, generated
        self.described = read_description(download)[request["problem"]]
        on_truths_grid = self.described | {"space_stride": 1, "variables": "primitive"}
        self.stored = stored_trajectories(download, on_truths_grid, ("test",))
        self.fine = len(self.stored.about["coordinates"][0])
        self.solvers = solvers_of(self.stored.about["problem"])
        self.grids = coarser_grids(self.fine, request["cells"])

    def rows(self, data: EvaluationSet) -> list[_Row]:
        about = self.stored.about
        first = torch.from_numpy(self.stored.read(about["splits"]["test"], frames=1)[:, 0])
        first = first.to(data.truth.device)
        times = data.setting.time_step, data.setting.frames
        given = Given(about["problem"], data.setting.parameters, data.setting.boundary, *times)
        if self.generated:
            grids = [(name, cells) for name in self.solvers for cells in self.grids]
            grids.append((next(iter(self.solvers)), self.fine))
        else:
            grids = [(name, cells) for name in self.solvers for cells in (*self.grids, self.fine)]
        return [self._row(name, cells, first, given, data) for name, cells in grids]

    def _row(self, name: str, cells: int, first: Tensor, given: Given, data: EvaluationSet) -> _Row:
        stride, device = self.described["space_stride"], data.truth.device
        threads = 1 if data.truth.is_cuda else self.request["threads"]

        def scored_variables(fields: Tensor) -> Tensor:
            return to_conserved(fields) if self.described["variables"] == "conserved" else fields

        def coarse(solve: Solver) -> CoarseSolver:
            return CoarseSolver(solve, given, self.fine, stride, cells, device)

        solve = self.solvers[name]
        solved = {"eager": coarse(solve)}
        if self.request["compile"] and solve in COMPILED:
            solved["compiled"] = coarse(torch.compile(solve, dynamic=False))
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
        about = {"cells": cells, "own_grid": self.generated and cells == self.fine, "reading": reading}
        return _Row(name, SOLVER, first, ways, about=about)


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


def _timed(rows: Sequence[_Row], records: Sequence[Record], batch: int, repeats: int) -> list[Record]:
    """Seconds per trajectory of every row, {"median", "low", "high", "way"}, for so many trajectories at once."""
    chosen: list[tuple[str, Callable[[], Forecast], Tensor]] = []
    seconds: list[list[float]] = [[] for _ in rows]
    torch.compiler.reset()
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # that a loop stays a loop is no news
    # One function is compiled for every grid, and all stay compiled while they are timed in turns. No more than that: it is
    # looked through at each call.
    with torch._dynamo.config.patch(recompile_limit=len(rows)):
        for row, record in zip(rows, records, strict=True):
            # Of fewer trajectories than the batch, some come twice.
            first = row.first[torch.arange(batch, device=row.first.device) % len(row.first)]
            way = _fastest(row, first, record["error"])
            chosen.append((way, row.ways[way], first))
        for number in range(repeats):
            log.info("batch %d: round %d of %d", batch, number + 1, repeats)
            for taken, (_, make, first) in zip(seconds, chosen, strict=True):
                taken.append(_seconds(make(), first) / batch)
    return [
        {"median": statistics.median(taken), "low": min(taken), "high": max(taken), "way": way}
        for taken, (way, _, _) in zip(seconds, chosen, strict=True)
    ]


def _fastest(row: _Row, first: Tensor, error: float | None) -> str:
    """The way of a row that takes least time; the first call of each is not counted.

    error: of the row, as it was scored in the first way; a way with other numbers does not count.
    """
    took: dict[str, float] = {}
    expected = None
    for way, make in row.ways.items():
        try:
            forecast = make()(first)
        except Exception as failure:
            if way == "eager":
                raise
            # Compilers fail in any way, also where their program runs; the row stays, uncompiled, and says so.
            log.info("%s %s: cannot be compiled: %r", row.name, row.about.get("cells", ""), failure)
            continue
        if expected is None:
            expected = forecast
        elif not _same(forecast, expected, error):
            log.info("%s %s: compiled, it gives other numbers", row.name, row.about.get("cells", ""))
            continue
        took[way] = min(_seconds(make(), first) for _ in range(_PILOTS))
    log.info(
        "batch %d: %s %s %s", len(first), row.name, row.about.get("cells", ""),
        ", ".join(f"{way} {seconds / len(first):.3g} s" for way, seconds in took.items()),
    )  # fmt: skip
    return min(took, key=lambda way: took[way])


def _same(forecast: Tensor, expected: Tensor, error: float | None) -> bool:
    """In every field, of any unit; never where something is not finite."""
    tolerance = min(_SAME, max(_ROUNDING, _SAME_PART * (error or 0.0)))
    difference, size = ((values.flatten(0, -2)).norm(dim=0) for values in (forecast - expected, expected))
    return bool((difference <= tolerance * size).all())


def _seconds(forecast: Forecast, first: Tensor) -> float:
    if first.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    forecast(first)
    if first.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
