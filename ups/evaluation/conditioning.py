"""Test-time conditioning: a forecast that is made of scored candidates, and what a choice among them could gain.

Candidates are the operator's forecast and members of the diffusion or the consistency model. They are scored in decoded physical
units (`ups.evaluation.physical_scores`), and a selection makes one forecast of them (`ups.evaluation.selections`). What it
adds to the operator's forecast is multiplied by a gate per lead, fitted on the validation split: there the row is no worse than the
operator.

Two controls choose among the same candidates, for as many leads in a row as the selection does: at random, and by the true error,
the most that a choice can gain. The latter is no forecast.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ups.config.conditioning import FITTED_FILE, OBSERVED, ORACLE, RANDOM, ROW, candidates_within
from ups.config.stages.evaluate import Evaluation
from ups.errors import ConfigurationError, IntegrityError
from ups.evaluation.ensembles import consistency_forecasters, diffusion_forecasters
from ups.evaluation.evaluation_set import EvaluationSet, ForecastInputs
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, operator_forecaster
from ups.evaluation.observations import Sensors, corrections
from ups.evaluation.physical_scores import Physics, Scored
from ups.evaluation.result_table import network_predictor, noise_of
from ups.evaluation.scores import Predictor, Scores, score
from ups.evaluation.surrogate import Surrogate
from ups.evaluation.totals import with_totals
from ups.kinds import module_of
from ups.losses.relative import relative_l2_per_field
from ups.runtime.randomness import torch_generator

log = logging.getLogger(__name__)

_IN_A_ROUND = 4  # candidates between two looks at the clock and at the scores
_INFLATIONS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Candidates:
    """Candidates of n trajectories.

    Attributes:
        forecast: the operator's, [n, t, Q, C], all channels, physical.
        scored: all of them, in units of `scale`, scored channels. The first is the operator's, moved to the first frame's totals
            where `keep_totals` is set.
        scale: [n, 1, 1, C].
        seconds: of all trajectories together: forecast, drawing and scores.
        calls: of generative models per trajectory.
    """

    forecast: Tensor
    scored: Scored
    scale: Tensor
    seconds: float
    calls: int


@dataclass(frozen=True)
class Fit:
    """What validation trajectories chose.

    Attributes:
        option: of the selection's parameter.
        gate: [t], of what the selection adds to the operator's forecast.
        inflation: of the observations.
        observed_gate: [t], of what they add.
    """

    option: Any
    gate: Tensor
    inflation: float = 0.0
    observed_gate: Tensor | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any], device: str) -> "Fit":
        """
        Raises:
            IntegrityError: they are not what `to_json` writes.
        """
        try:
            gates = {
                name: None if values[name] is None else torch.tensor(values[name], device=device)
                for name in ("gate", "observed_gate")
            }
            return cls(**{**values, **gates})
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"is no fit of test-time conditioning: {error}", where=FITTED_FILE
            ) from error

    def to_json(self) -> dict[str, Any]:
        gates = {name: getattr(self, name) for name in ("gate", "observed_gate")}
        return vars(self) | {name: None if gate is None else gate.tolist() for name, gate in gates.items()}


class Conditioner:
    """Makes, scores and selects candidates of one problem's trajectories."""

    def __init__(
        self,
        surrogate: Surrogate,
        inputs: ForecastInputs,
        evaluation: Evaluation,
        *,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            evaluation: with `ttc`.
            seed: of what the candidates are drawn from; None: the evaluation's.
        """
        settings = evaluation.ttc
        assert settings is not None
        self.settings, self._surrogate, self._inputs = settings, surrogate, inputs
        self.seed = evaluation.seed if seed is None else seed
        # Trajectories whose candidates of a model advance together, as members of an ensemble do.
        self.batch = max(1, evaluation.batch_size // settings.members)
        self.codec = surrogate.codec.of(inputs.problem)
        shape = self.codec.shape
        self.forecasts = OperatorForecasts(surrogate.operator, self.codec)
        self.calls = {model: self._forecaster(model, 1).calls_per_member for model in settings.models}
        self.physics = Physics(
            shape,
            inputs.grid,
            inputs.parameters,
            inputs.time_step,
            settings.scores,
            settings.refinement,
        )
        self.selection = module_of("ups.evaluation.selections", settings.selection.kind)
        self.span: int = self.selection.span(settings.selection, inputs.steps)
        self.sensors = None
        if settings.observations is not None:
            self.sensors = Sensors.of(
                settings.observations,
                shape.problem,
                [torch.from_numpy(axis) for axis in inputs.coordinates],
                time_step=inputs.time_step,
                frames=inputs.steps + 1,
                periodic=shape.boundary == "periodic",
            )
        self._noise: dict[str, torch.Generator] = {}  # of a model: rounds of any size draw on
        self._predictors: dict[tuple[str, int], Predictor] = {}
        self._dearest = 0.0  # seconds per trajectory of a round
        self.cheapest = float("inf")

    def rounds(self) -> list[tuple[str, int]]:
        """Models and numbers of candidates, in the order in which they are drawn, within the budget of calls."""
        watched = self.settings.max_seconds is not None or self.settings.stop_at is not None
        counts = candidates_within(self.settings.max_calls, self.settings.members, self.calls)
        found = []
        for model, count in counts.items():
            size = _IN_A_ROUND if watched else max(count, 1)
            found += [(model, min(size, count - done)) for done in range(0, count, size)]
        return found

    def candidates(self, first: Tensor, *, measuring: bool = False) -> Candidates:
        """Of first frames [n, *grid, C].

        measuring: draw the first round whatever it takes.
        """
        settings, count = self.settings, len(first)
        started = _now(first)
        self.forecasts.forget()
        forecast = self._predict("operator", 1, first)
        # Physics knows no more of the first frame than the models do.
        seen = self.codec.seen(first.unsqueeze(1)).squeeze(1) if self._inputs.sampled else first
        scored = self._scored(seen, forecast)
        calls, drawn = 0, 0
        for model, members in self.rounds():
            spent = (_now(first) - started) / count
            late = settings.max_seconds is not None and spent + self._dearest > settings.max_seconds
            if late and not (measuring and drawn == 0):
                break
            satisfied = scored.totals.amin(dim=1) <= (settings.stop_at or 0.0)
            if settings.stop_at is not None and bool(satisfied.all()):
                break
            more = self._scored(seen, self._predict(model, members, first))
            # What a trajectory would not have drawn by itself is no candidate.
            scored = scored.joined(more.without(satisfied) if settings.stop_at is not None else more)
            calls, drawn = calls + members * self.calls[model], drawn + members
            now = (_now(first) - started) / count
            self._dearest = max(self._dearest, now - spent)
            self.cheapest = min(self.cheapest, now)
        scale = self.physics.scale(seen)[:, 0]
        return Candidates(forecast[:, 0], scored, scale, _now(first) - started, calls)

    def _scored(self, seen: Tensor, made: Tensor) -> Scored:
        """Of first frames [n, *grid, C] and forecasts [n, M, t, Q, C], all channels, physical."""
        if self.settings.keep_totals:
            made = with_totals(made, seen, self.codec.shape)
        return self.physics.score(seen, made)

    def rewind(self) -> None:
        """Draw again what was drawn, from the first trajectory on."""
        self._noise.clear()
        self._predictors.clear()

    def select(self, candidates: Candidates, option: Any) -> Tensor:
        """What the selection adds to the operator's forecast, [n, t, Q, C] of the scored channels, physical."""
        scored = candidates.scored
        chosen = self.selection.selected(scored, self.settings.selection, option)
        if not self.settings.keep_totals:
            return (chosen - scored.fields[:, 0]) * candidates.scale
        return chosen * candidates.scale - self.codec.shape.scored_fields(candidates.forecast)

    def conditioned(self, candidates: Candidates, fitted: Fit) -> Tensor:
        """The forecast that is made of candidates, [n, t, Q, C], all channels, physical."""
        forecast = self.codec.shape.scored_fields(candidates.forecast)
        added = self.select(candidates, fitted.option)
        return self.whole(candidates, forecast + fitted.gate[:, None, None] * added)

    def whole(self, candidates: Candidates, values: Tensor) -> Tensor:
        """The operator's forecast [n, t, Q, C] with other values [n, t, Q, scored] of its scored channels."""
        result = candidates.forecast.clone()
        result[..., list(self.codec.shape.scored)] = values
        return result

    def observed(
        self, candidates: Candidates, forecast: Tensor, readings: Tensor, inflation: float
    ) -> Tensor:
        """What readings [n, O] add to a forecast [n, t, Q, C] of the scored channels, physical."""
        assert self.sensors is not None
        members = candidates.scored.fields[:, 1:] * candidates.scale[:, None]
        usable = candidates.scored.costs[:, 1:].isfinite().all(dim=2)
        return corrections(members, usable, readings - self.sensors.read(forecast), self.sensors, inflation)

    def readings(self, truth: Tensor, split: str) -> Tensor:
        """What the sensors say of all trajectories [n, t, Q, C] of the scored channels of a split, [n, O]."""
        assert self.sensors is not None
        key = (self.seed, "observations", self._inputs.problem, split)
        return self.sensors.readings(truth, torch_generator(*key, device=truth.device))

    def _predict(self, model: str, members: int, first: Tensor) -> Tensor:
        made = self._predictors.get((model, members))
        if made is None:
            forecaster = self._forecaster(model, members)
            if model not in self._noise:
                self._noise[model] = noise_of(self.codec, forecaster, seed=self.seed, device=first.device)
            made = network_predictor(
                self.codec, forecaster, self._inputs, seed=self.seed, generator=self._noise[model]
            )
            self._predictors[model, members] = made
        return made(first)

    def _forecaster(self, model: str, members: int) -> Forecaster:
        surrogate = self._surrogate
        if model == "operator":
            return operator_forecaster(self.forecasts)
        sampler = surrogate.samplers[model]
        if model == "diffusion":
            return diffusion_forecasters(self.forecasts, surrogate.diffusion, members=members, **sampler)[0]
        return consistency_forecasters(self.forecasts, surrogate.consistency, members=members, **sampler)[0]


@torch.no_grad()
def fit(conditioner: Conditioner, truth: Tensor) -> Fit:
    """Parameter and gates that are best on validation trajectories [n, 1 + t, *grid, C]; never worse than the operator there.

    Raises:
        ConfigurationError: the budget of seconds is below one candidate.
    """
    settings, scored = conditioner.settings, conditioner.codec.shape.scored_fields
    batch = conditioner.batch
    options = conditioner.selection.options(settings.selection)
    forecasts = []
    additions: list[list[Tensor]] = [[] for _ in options]
    for part in truth.split(batch):
        candidates = conditioner.candidates(part[:, 0], measuring=True)
        forecasts.append(scored(candidates.forecast))
        for found, option in zip(additions, options, strict=True):
            found.append(conditioner.select(candidates, option))
    if settings.max_seconds is not None and conditioner.cheapest > settings.max_seconds:
        raise ConfigurationError(
            f"{settings.max_seconds:g} s are below one candidate: the operator's forecast and {conditioner.rounds()[0][1]} "
            f"candidates took {conditioner.cheapest:.3g} s",
            where="evaluation.ttc.max_seconds",
            fix="raise it, or write null",
        )
    target = scored(truth[:, 1:].flatten(2, -2))
    forecast = torch.cat(forecasts)
    best = None
    for option, found in zip(options, additions, strict=True):
        added = torch.cat(found)
        gate, error = _gate(forecast, added, target)
        if best is None or error < best[0]:
            best = error, option, gate, forecast + gate[:, None, None] * added
    assert best is not None
    error, option, gate, result = best
    log.info(
        "conditioning of %s: %s of %d validation trajectories, ratio to the operator %.3f, gates %.2f to %.2f",
        conditioner.codec.problem, option, len(truth), error / _error(forecast, target), gate.min(), gate.max(),
    )  # fmt: skip
    if conditioner.sensors is None:
        return Fit(option, gate)
    # Candidates are drawn twice: those of all trajectories at once would take too much memory.
    conditioner.rewind()
    observed: list[list[Tensor]] = [[] for _ in _INFLATIONS]
    parts = (
        values.split(batch) for values in (truth[:, 0], result, conditioner.readings(target, "validation"))
    )
    for first, own, read in zip(*parts, strict=True):
        candidates = conditioner.candidates(first, measuring=True)
        for found, inflation in zip(observed, _INFLATIONS, strict=True):
            found.append(conditioner.observed(candidates, own, read, inflation))
    tried = [
        (*_gate(result, torch.cat(found), target), inflation)
        for found, inflation in zip(observed, _INFLATIONS, strict=True)
    ]
    observed_gate, _, inflation = min(tried, key=lambda found: found[1])
    return Fit(option, gate, inflation, observed_gate)


def _gate(forecast: Tensor, added: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gates [t] of what is added to a forecast, all [n, t, Q, C], and the error with them.

    The least-squares factors within [0, 1], errors relative to the square norm of trajectory and field, as in
    `ups.evaluation.correction`; 0 where the headline metric, a mean of roots, grows all the same.
    """
    weight = 1 / target.square().sum(dim=(1, 2), keepdim=True)
    error = target - forecast
    products, squares = (
        (weight * values).double().sum(dim=(0, 2, 3)) for values in (error * added, added.square())
    )
    gate = torch.where(squares > 0, products / squares, 0.0).nan_to_num(0.0).clamp(0, 1).to(target)
    before, after = _error(forecast, target), _error(forecast + gate[:, None, None] * added, target)
    return (gate, after) if bool(after < before) else (torch.zeros_like(gate), before)


def _error(forecast: Tensor, target: Tensor) -> Tensor:
    """Mean trajectory relative L2."""
    return relative_l2_per_field(forecast, target).mean()


@torch.no_grad()
def conditioned_rows(
    conditioner: Conditioner, fitted: Fit, data: EvaluationSet
) -> tuple[list[Scores], dict[str, Any]]:
    """Rows `ttc`, its controls, and `ttc_observed` where it is asked for; and what their figure shows.

    The figure has of every candidate its score and its true error, [n, M] each, null where one is no state of the equation.
    """
    shape, setting, batch = conditioner.codec.shape, data.setting, conditioner.batch
    rows: dict[str, list[Tensor]] = {ROW: [], RANDOM: [], ORACLE: []}
    seconds: dict[str, float] = {}
    calls, scores, errors = 0, [], []
    key = (conditioner.seed, "random choice", setting.problem, setting.split)
    generator = torch_generator(*key, device=data.truth.device)
    readings = None
    if conditioner.sensors is not None:
        rows[OBSERVED] = []
        readings = conditioner.readings(
            shape.scored_fields(data.truth[:, 1:].flatten(2, -2)), setting.split
        ).split(batch)
    for place, part in enumerate(data.truth.split(batch)):
        candidates = conditioner.candidates(part[:, 0])
        calls = max(calls, candidates.calls)
        fields = candidates.scored.fields
        target = shape.scored_fields(part[:, 1:].flatten(2, -2)) / candidates.scale

        def keep(row: str, made: Tensor, taken: float) -> None:
            rows[row].append(made[:, None])
            seconds[row] = seconds.get(row, 0.0) + taken

        started = _now(part)
        chosen = conditioner.conditioned(candidates, fitted)
        taken = candidates.seconds + _now(part) - started
        keep(ROW, chosen, taken)
        true = (fields - target[:, None]).square().sum(dim=3).nan_to_num(torch.inf)  # [n, M, t, C]
        relative = true / target.square().sum(dim=(1, 2))[:, None, None]
        usable = candidates.scored.costs.isfinite().all(dim=2)
        usable[:, 0] = True
        luck = torch.rand(relative.shape[:3], generator=generator, device=relative.device)
        for row, measure in ((RANDOM, luck), (ORACLE, relative.mean(dim=3))):
            found = _by_spans(fields, measure.masked_fill(~usable[:, :, None], torch.inf), conditioner.span)
            keep(row, conditioner.whole(candidates, found * candidates.scale), candidates.seconds)
        if readings is not None:
            assert fitted.observed_gate is not None
            started = _now(part)
            forecast = shape.scored_fields(chosen)
            added = conditioner.observed(candidates, forecast, readings[place], fitted.inflation)
            result = conditioner.whole(candidates, forecast + fitted.observed_gate[:, None, None] * added)
            keep(OBSERVED, result, taken + _now(part) - started)
        scores.append(candidates.scored.totals)
        errors.append(relative.sum(dim=2).sqrt().mean(dim=2))
    results = []
    for row, made in rows.items():
        predictions = iter(made)
        result = score(
            row,
            lambda _, predictions=predictions: next(predictions),
            data.truth,
            setting,
            members=1,
            calls_per_step=conditioner.forecasts.calls_per_step,
            calls_per_member=calls,
            batch=batch,
        )
        result.seconds = seconds[row]
        results.append(result)
        log.info(
            "evaluate %s %-20s trajectory relative L2 %.6f  %.1f s",
            setting.problem, row, result.get("trajectory").mean().item(), result.seconds,
        )  # fmt: skip
    width = max(part.shape[1] for part in scores)
    shown = {
        name: [_numbers(row, width) for part in parts for row in part.tolist()]
        for name, parts in (("scores", scores), ("errors", errors))
    }
    return results, shown


def _now(values: Tensor) -> float:
    """Seconds of the clock, once the device of values has done what it was told to."""
    if values.is_cuda:
        torch.cuda.synchronize(values.device)
    return time.perf_counter()


def _numbers(values: list[float], width: int) -> list[float | None]:
    """For JSON: null where a candidate is no state of the equation or was not drawn."""
    finite = [value if abs(value) < float("inf") else None for value in values]
    return finite + [None] * (width - len(values))


def _by_spans(fields: Tensor, measure: Tensor, span: int) -> Tensor:
    """Of candidates [n, M, t, Q, C], for every `span` leads the one of the least sum of a measure [n, M, t]: [n, t, Q, C]."""
    rows = torch.arange(len(fields), device=fields.device)
    parts = []
    for start in range(0, fields.shape[2], span):
        leads = slice(start, start + span)
        chosen = measure[:, :, leads].sum(dim=2).argmin(dim=1)
        parts.append(fields[rows, chosen, leads])
    return torch.cat(parts, dim=1)
