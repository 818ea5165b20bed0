"""evaluate: the result table on the test split, against the float32 source."""

import json
import logging
import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ups.config.schema import TRAINING_STAGES
from ups.data.dataset import load_dataset
from ups.evaluation.score import Scores, Setting, records
from ups.inference.surrogate import Surrogate, load_surrogate
from ups.models.token_grid import cell_centres
from ups.report.figures import draw_all
from ups.runtime.ranks import device_name, join_ranks
from ups.runtime.records import read_records
from ups.runtime.request import Request
from ups.stages.scoring import network_forecast, score_all

log = logging.getLogger(__name__)


def run(request: Request) -> None:
    """Write metrics.json (records), curves.json (over time and wavenumber), example trajectories, figures."""
    configuration = request.configuration
    settings = configuration.evaluation
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        dataset = load_dataset(request.inputs["download"], ("test",))
        surrogate = load_surrogate(request.inputs, configuration)
        truth = torch.from_numpy(dataset.fields).to(ranks.device)
        scalars = torch.tensor(dataset.scalars, device=ranks.device)
        results = score_all(
            surrogate.codec,
            surrogate.forecasters,
            truth,
            scalars,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        setting = Setting(
            dataset=dataset.name,
            version=dataset.version,
            split="test",
            seed=configuration.seed,
            resolution=dataset.grid,
            frames=truth.shape[1],
            device=device_name(ranks.device),
            threads=configuration.execution.threads,
        )
        table = [record for result in results for record in records(result, setting)]
        examples, chosen = _examples(surrogate, results, truth, scalars, seed=settings.seed)
    request.output.mkdir(parents=True, exist_ok=True)
    (request.output / "metrics.json").write_text(json.dumps(table, indent=1, allow_nan=False))
    curves = _curves(results, truth) | {
        "times": dataset.times.tolist(),
        "coordinates": dataset.coordinates.tolist(),
        "examples": chosen,
        "names": list(dataset.names),
    }
    (request.output / "curves.json").write_text(json.dumps(curves, allow_nan=False))
    save_file(examples, request.output / "examples.safetensors")
    _draw(request, curves, examples)
    request.finish(
        {record["model"]: record["value"] for record in table if record["metric"] == "trajectory_relative_l2"}
    )


def _draw(request: Request, curves: dict[str, Any], examples: dict[str, Tensor]) -> None:
    """Write the report's figures; the trainings' records come from the logs of the input artifacts."""
    training = {
        stage: read_records(request.inputs[stage] / "logs" / "metrics.jsonl") for stage in TRAINING_STAGES
    }
    directory = request.output / "figures"
    directory.mkdir(exist_ok=True)
    for name, content in draw_all(curves, {k: v.numpy() for k, v in examples.items()}, training).items():
        (directory / name).write_bytes(content)


def _curves(results: list[Scores], truth: Tensor) -> dict[str, Any]:
    """Per model: error over time (mean and 10 / 90 % quantiles over trajectories), energy spectrum of the
    last frame, coverage over time and rank histogram of ensembles. None where a forecast is not finite."""
    energy = torch.fft.rfft(truth[:, -1].flatten(1, -2), dim=1).abs().square().sum(dim=-1)
    models = {}
    for result in results:
        frame = result.get("frame")
        models[result.name] = {
            "error": _listed(frame.mean(dim=0)),
            "error_10": _listed(frame.quantile(0.1, dim=0)),
            "error_90": _listed(frame.quantile(0.9, dim=0)),
            "spectrum": _listed(result.get("spectrum").mean(dim=0)),
            "trajectory": _listed(result.get("trajectory")),
            "members": result.members,
        }
        if result.members > 1:
            models[result.name] |= {
                "coverage": _listed(result.get("coverage").mean(dim=0)),
                "ranks": result.get("ranks").sum(dim=0).tolist(),
            }
    return {"truth_spectrum": _listed(energy.mean(dim=0)), "models": models}


def _listed(values: Tensor) -> list[float | None]:
    """For JSON: None where a forecast is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _examples(
    surrogate: Surrogate, results: list[Scores], truth: Tensor, scalars: Tensor, *, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Forecasts of three trajectories: good (10 % quantile of the operator's error), median and worst.

    The band of an ensemble reaches between the ranks that enclose its central 90 %, as in
    `ups.evaluation.metrics.coverage`: for 16 members, from the lowest to the highest.
    """
    errors = next(result for result in results if result.name == "operator").get("trajectory")
    order = errors.argsort()
    ranks = {"good": round(0.1 * (len(order) - 1)), "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    indices = [int(order[rank]) for rank in ranks.values()]
    chosen = [
        {"label": label, "trajectory": index, "error": error}
        for label, index, error in zip(ranks, indices, _listed(errors[indices]), strict=True)
    ]
    part = truth[indices]
    tensors = {"truth": part.flatten(2, -2).cpu().contiguous()}
    coordinates = cell_centres(truth.shape[2:-1]).to(truth.device)
    for forecaster in surrogate.forecasters:
        if forecaster.name not in {"operator", "diffusion"}:
            continue
        forecast = network_forecast(
            surrogate.codec, forecaster, scalars, truth.shape[1] - 1, coordinates, seed=seed
        )
        ensemble = forecast(part[:, 0])
        tensors[forecaster.name] = ensemble.mean(dim=1).cpu().contiguous()
        if forecaster.members > 1:
            tensors[f"{forecaster.name}_deviation"] = ensemble.std(dim=1).cpu().contiguous()
            band = np.quantile(ensemble.cpu().numpy(), (0.05, 0.95), axis=1, method="weibull")
            for side, values in zip(("lower", "upper"), band, strict=True):
                tensors[f"{forecaster.name}_{side}"] = torch.from_numpy(values.astype(np.float32))
    return tensors, chosen
