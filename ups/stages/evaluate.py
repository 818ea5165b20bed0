"""evaluate: the result table on the test split, against the float32 source."""

import json
import logging
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ups.data.dataset import load_dataset
from ups.evaluation.score import Scores, Setting, records
from ups.stages.scoring import network_forecast, score_all
from ups.inference.surrogate import Surrogate, load_surrogate
from ups.models.token_grid import cell_centres
from ups.runtime.ranks import device_name, join_ranks
from ups.runtime.request import Request

log = logging.getLogger(__name__)


def run(request: Request) -> None:
    """Write metrics.json (records), curves.json (over time and wavenumber) and example trajectories."""
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
    request.finish(
        {
            record["model"]: record["value"]
            for record in table
            if record["metric"] == "trajectory_relative_l2"
        }
    )


def _curves(results: list[Scores], truth: Tensor) -> dict[str, Any]:
    """Per model: error over time (mean and 10 / 90 % quantiles over trajectories), energy spectrum of the
    last frame, coverage over time and rank histogram of ensembles."""
    energy = torch.fft.rfft(truth[:, -1].flatten(1, -2), dim=1).abs().square().sum(dim=-1)
    models = {}
    for result in results:
        frame = result.get("frame")
        models[result.name] = {
            "error": frame.mean(dim=0).tolist(),
            "error_10": frame.quantile(0.1, dim=0).tolist(),
            "error_90": frame.quantile(0.9, dim=0).tolist(),
            "spectrum": result.get("spectrum").mean(dim=0).tolist(),
            "trajectory": result.get("trajectory").tolist(),
        }
        if result.members > 1:
            models[result.name] |= {
                "coverage": result.get("coverage").mean(dim=0).tolist(),
                "ranks": result.get("ranks").sum(dim=0).tolist(),
            }
    return {"truth_spectrum": energy.mean(dim=0).tolist(), "models": models}


def _examples(
    surrogate: Surrogate, results: list[Scores], truth: Tensor, scalars: Tensor, *, seed: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Forecasts of three trajectories: good (10 % quantile of the operator's error), median and worst."""
    errors = next(result for result in results if result.name == "operator").get("trajectory")
    order = errors.argsort()
    ranks = {"good": round(0.1 * (len(order) - 1)), "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    indices = [int(order[rank]) for rank in ranks.values()]
    chosen = [
        {"label": label, "trajectory": index, "error": errors[index].item()}
        for label, index in zip(ranks, indices, strict=True)
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
    return tensors, chosen
