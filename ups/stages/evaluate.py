"""evaluate: the result tables on the test split, or on a few validation trajectories, against the float32 source."""

import json
import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ups.config import Configuration
from ups.config.conditioning import FITTED_FILE
from ups.data.dataset import Dataset, load_datasets
from ups.evaluation import metrics
from ups.evaluation.conditioning import Conditioner, Fit, conditioned_rows, fit
from ups.evaluation.evaluation_set import EvaluationSet, evaluation_set, train_means
from ups.evaluation.outside import SPLIT, outside_dataset
from ups.evaluation.result_records import HEADLINE, result_records
from ups.evaluation.result_table import network_predictor, score_all
from ups.evaluation.scores import Scores
from ups.evaluation.surrogate import Surrogate, load_surrogate
from ups.problems.generated import FromSinusoids
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request

OUTSIDE = "outside.json"


def run(request: Request) -> None:
    """Write metrics.json (records of all problems), outside.json (the same outside the training range), curves.json
    (by problem: over time and wavenumber, errors by trajectory), conditioning.json (by problem: what was fitted for
    test-time conditioning) and examples/PROBLEM.safetensors (trajectories)."""
    configuration = request.configuration
    settings = configuration.evaluation
    of_the_run = {
        "seed": configuration.seed,
        "threads": configuration.execution.threads,
        "initial_steps": settings.pdebench_initial_steps,
    }
    (request.output / "examples").mkdir(parents=True, exist_ok=True)
    table: list[dict[str, Any]] = []
    outside: list[dict[str, Any]] = []
    curves: dict[str, dict[str, Any]] = {}
    fitted: dict[str, dict[str, Any]] = {}
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        surrogate = load_surrogate(request.inputs, configuration)
        split = settings.split
        datasets = load_datasets(request.inputs["download"], (*settings.fitted_splits, split))
        maps = [name for name, dataset in datasets.items() if dataset.problem.is_map]
        means = train_means(request.inputs["download"], maps)
        for name, dataset in datasets.items():
            evaluated = evaluation_set(
                name,
                dataset,
                split,
                ranks.device,
                mean=means.get(name),
                most=settings.small,
                **of_the_run,
            )
            # Before the table, which takes long: what cannot be conditioned is refused here.
            conditioned = _Conditioned(surrogate, dataset, name, configuration, ranks.device, of_the_run)
            results = score_all(surrogate, evaluated, batch_size=settings.batch_size, seed=settings.seed)
            rows, chosen_among = conditioned.rows(evaluated)
            results += rows
            if conditioned.fitted is not None:
                fitted[name] = conditioned.fitted.to_json()
            table += result_records(results, evaluated.setting)
            examples, chosen = _examples(surrogate, results, evaluated, seed=settings.seed)
            curves[name] = _curves(results, evaluated, dataset) | {"examples": chosen} | chosen_among
            save_file(examples, request.output / "examples" / f"{name}.safetensors")
            data = configuration.problems[name]
            if settings.outside is not None and settings.small is None and isinstance(data, FromSinusoids):
                beyond = outside_dataset(dataset, data, settings.outside, ranks.device)
                evaluated = evaluation_set(name, beyond, SPLIT, ranks.device, mean=None, **of_the_run)
                results = score_all(
                    surrogate,
                    evaluated,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    equivariance=False,
                )
                results += conditioned.rows(evaluated)[0]
                outside += result_records(results, evaluated.setting)
    (request.output / OUTSIDE).write_text(json.dumps(outside, indent=1, allow_nan=False))
    (request.output / "metrics.json").write_text(json.dumps(table, indent=1, allow_nan=False))
    (request.output / "curves.json").write_text(json.dumps(curves, allow_nan=False))
    (request.output / FITTED_FILE).write_text(json.dumps(fitted, allow_nan=False))
    request.finish(_summary(table, list(datasets)))


class _Conditioned:
    """Rows of test-time conditioning, fitted once per problem; none where it is off."""

    def __init__(
        self,
        surrogate: Surrogate,
        dataset: Dataset,
        name: str,
        configuration: Configuration,
        device: torch.device,
        of_the_run: dict[str, int],
    ) -> None:
        self._surrogate, self._evaluation = surrogate, configuration.evaluation
        self.fitted: Fit | None = None
        settings = configuration.evaluation.conditioning
        if settings is None:
            return
        most = settings.fitted_on
        validation = evaluation_set(name, dataset, "validation", device, mean=None, most=most, **of_the_run)
        conditioner = self._of(validation)
        self.fitted = fit(conditioner, validation.truth)

    def _of(self, data: EvaluationSet) -> Conditioner:
        return Conditioner(self._surrogate, data.inputs, self._evaluation)

    def rows(self, data: EvaluationSet) -> tuple[list[Scores], dict[str, Any]]:
        """Of a set of trajectories, and what their figure shows."""
        if self.fitted is None:
            return [], {}
        results, shown = conditioned_rows(self._of(data), self.fitted, data)
        return results, {"conditioning": shown}


def _summary(table: list[dict[str, Any]], problems: list[str]) -> dict[str, float | None]:
    """The headline by model; by "problem/model" where there are several problems."""
    headline = [record for record in table if record["metric"] == HEADLINE and record["field"] is None]
    if len(problems) == 1:
        return {record["model"]: record["value"] for record in headline}
    return {f"{record['problem']}/{record['model']}": record["value"] for record in headline}


def _curves(results: list[Scores], evaluated: EvaluationSet, dataset: Dataset) -> dict[str, Any]:
    """What the figures of a problem show, beside its example trajectories.

    Per model: error over time (mean and 10 / 90 % quantiles over trajectories), error by trajectory, energy
    spectrum of the last frame by scored field, coverage over time and rank histogram of ensembles. None where a
    forecast is not finite.
    """
    setting = evaluated.setting
    last = evaluated.truth[:, -1:].flatten(2, -2)[..., setting.scored]
    energy = metrics.power(last, setting.resolution)[:, 0].mean(dim=0)
    models = {}
    for result in results:
        frame = result.get("pdebench_nrmse").mean(dim=-1)
        models[result.name] = {
            "error": _listed(frame.mean(dim=0)),
            "error_10": _listed(frame.quantile(0.1, dim=0)),
            "error_90": _listed(frame.quantile(0.9, dim=0)),
            "spectrum": [_listed(field) for field in result.get("spectrum").mean(dim=0).T],
            "trajectory": _listed(result.get("trajectory")),
            "members": result.members,
        }
        if result.members > 1:
            models[result.name] |= {
                "coverage": _listed(metrics.coverage(result.get("ranks"), 0.9).mean(dim=0)),
                "ranks": result.get("ranks").sum(dim=(0, 1)).tolist(),
            }
    return {
        "title": dataset.title,
        "is_map": setting.is_map,
        "boundary": setting.boundary,
        "fields": [
            {"name": field.name, "unit": field.unit, "given": field.given} for field in setting.fields
        ],
        "axes": list(dataset.problem.axes),
        "coordinates": [axis.tolist() for axis in dataset.coordinates],
        "times": dataset.times.tolist(),
        "truth_spectrum": [_listed(field) for field in energy.T],
        "models": models,
    }


def _listed(values: Tensor) -> list[float | None]:
    """For JSON: None where a forecast is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _examples(
    surrogate: Surrogate, results: list[Scores], evaluated: EvaluationSet, *, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Forecasts of three trajectories: good (10 % quantile of the operator's error), median and worst.

    `truth` [3, 1 + t, Q, C], and of the forecasts [3, t, Q, C]. The band of an ensemble reaches between the ranks
    that enclose its central 90 %, as in `ups.evaluation.metrics.coverage`: for 16 members, from the lowest to the
    highest.
    """
    errors = next(result for result in results if result.name == "operator").get("trajectory")
    order = errors.argsort()
    ranks = {"good": round(0.1 * (len(order) - 1)), "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    indices = [int(order[rank]) for rank in ranks.values()]
    chosen = [
        {"label": label, "trajectory": index, "error": error}
        for label, index, error in zip(ranks, indices, _listed(errors[indices]), strict=True)
    ]
    part = evaluated.truth[indices]
    tensors = {"truth": part.flatten(2, -2).cpu().contiguous()}
    codec = surrogate.codec.of(evaluated.setting.problem)
    for forecaster in surrogate.forecasters(evaluated.setting.problem):
        if forecaster.name not in {"operator", "diffusion"}:
            continue
        ensemble = network_predictor(codec, forecaster, evaluated.inputs, seed=seed)(part[:, 0])
        tensors[forecaster.name] = ensemble.mean(dim=1).cpu().contiguous()
        if forecaster.members > 1:
            tensors[f"{forecaster.name}_deviation"] = ensemble.std(dim=1).cpu().contiguous()
            band = np.quantile(ensemble.cpu().numpy(), (0.05, 0.95), axis=1, method="weibull")
            for side, values in zip(("lower", "upper"), band, strict=True):
                tensors[f"{forecaster.name}_{side}"] = torch.from_numpy(values.astype(np.float32))
    return tensors, chosen
