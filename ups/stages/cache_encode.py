"""cache_encode: the frozen encoder over all trajectories, into zarr."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ups.artifacts.files import read_json, write_json
from ups.data.cache import CacheWriter
from ups.data.dataset import Dataset, load_dataset
from ups.models.autoencoder import Autoencoder
from ups.models.build import CODEC_FILE, MODEL_FILE, load_model, save_model
from ups.models.codec import Codec
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request

log = logging.getLogger(__name__)

_BATCH_FRAMES = 4096


def run(request: Request) -> None:
    """Write `cache.zarr` and `codec.safetensors` (the frozen autoencoder with all statistics)."""
    configuration = request.configuration
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        dataset = load_dataset(request.inputs["download"])
        autoencoder, description = load_model(request.inputs["autoencoder"] / MODEL_FILE, ranks.device)
        assert isinstance(autoencoder, Autoencoder)
        dim = description["latent_dim"]
        codec = Codec(
            autoencoder,
            torch.tensor(description["field_mean"]),
            torch.tensor(description["field_deviation"]),
            torch.zeros(dim),
            torch.ones(dim),
        ).to(ranks.device)
        mean, deviation = _latent_statistics(request, codec, dataset)
        codec.latent_mean.copy_(mean)
        codec.latent_deviation.copy_(deviation)
        save_model(
            request.output / CODEC_FILE,
            codec,
            description | {"kind": "codec", "codec": request.contents["autoencoder"]},
        )
        round_trip = _write(request, codec, dataset, description)
    request.finish(
        {
            "float16_round_trip": round_trip,
            "encoder": request.contents["autoencoder"],
            "dataset": request.contents["download"],
            "trajectories": len(dataset.fields),
            "latent_mean": mean.tolist(),
            "latent_deviation": deviation.tolist(),
        }
    )


def _latent_statistics(request: Request, codec: Codec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel of the train split's raw latents, each [d] float32; found once."""
    path = request.work / "statistics.json"
    if path.exists():
        known = read_json(path)
        return torch.tensor(known["mean"]), torch.tensor(known["deviation"])
    total, squares, count = 0.0, 0.0, 0
    for latents in _encode(codec, dataset.split("train")):
        flat = latents.double().flatten(0, -2)
        total, squares, count = total + flat.sum(0), squares + flat.square().sum(0), count + len(flat)
    mean = torch.as_tensor(total / count)
    deviation = (torch.as_tensor(squares / count) - mean.square()).clamp_min(0).sqrt()
    # A channel that never moves carries nothing; dividing by its zero deviation would make it NaN.
    deviation = torch.where(deviation > 1e-12, deviation, 1.0)
    statistics = (mean.float().cpu(), deviation.float().cpu())
    write_json(path, {"mean": statistics[0].tolist(), "deviation": statistics[1].tolist()})
    return statistics


def _write(
    request: Request, codec: Codec, dataset: Dataset, description: dict
) -> dict[str, dict[str, float]]:
    attributes = {
        "format": "universal-physics-stack latent cache 1",
        "names": list(dataset.names),
        "splits": {name: rows.tolist() for name, rows in dataset.splits.items()},
        "rows": dataset.rows.tolist(),
        "times": dataset.times.tolist(),
        "coordinates": dataset.coordinates.tolist(),
        "parameters": dataset.parameters,
        "scalars": dataset.scalars,
        "tokens": description["tokens"],
        "encoder": request.contents["autoencoder"],
        "dataset": request.contents["download"],
    }
    token_count = int(np.prod(description["tokens"]))
    writer = CacheWriter(
        request.output,
        request.work / "progress.json",
        rows=len(dataset.fields),
        frames=dataset.fields.shape[1],
        latent_shape=(token_count, description["latent_dim"]),
        grid=dataset.grid,
        names=dataset.names,
        slab=request.configuration.cache_encode.trajectories_per_chunk,
        attributes=attributes,
    )
    started, first = time.monotonic(), writer.done
    for slab in range(writer.done, writer.slabs):
        fields = dataset.fields[writer.rows_of(slab)]
        latents = torch.cat(list(_encode(codec, fields))).cpu().numpy()
        writer.write_slab(slab, latents.reshape(*fields.shape[:2], *latents.shape[1:]), fields)
        done = writer.rows_of(slab).stop
        rate = (done - writer.rows_of(first).start) / (time.monotonic() - started)
        log.info("cached %d/%d trajectories  %.0f/s", done, len(dataset.fields), rate)
    return {name: error.to_json() for name, error in writer.round_trip.items()}


@torch.no_grad()
def _encode(codec: Codec, fields: np.ndarray) -> Iterator[Tensor]:
    """Latents [frames, K, d] of fields [n, t, *grid, C], thousands of frames at a time."""
    device = codec.field_mean.device
    frames = torch.from_numpy(fields.reshape(-1, *fields.shape[2:]))
    for part in frames.split(_BATCH_FRAMES):
        yield codec.encode(part.to(device))
