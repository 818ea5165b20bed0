"""A surrogate as one file: the networks of a run, and what their user must know of its problems.

A safetensors file, so that nothing is unpickled. Weights are named NETWORK/WEIGHT, a map's mean output mean/PROBLEM; the header
holds the networks' descriptions, the problems, how it was scored and with what results, where all of it comes from, and a sum over
everything. Errors of held-back trajectories are not in it: they dress the operator in the rows that ensembles are compared with, and
are larger than all networks.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ups.artifacts.files import canonical_json, write_bytes
from ups.config.stages.evaluate import Evaluation
from ups.errors import IntegrityError
from ups.evaluation.conditioning import Fit
from ups.evaluation.surrogate import Surrogate, check_alike
from ups.evaluation.trained import Trained
from ups.evaluation.usage import Usage
from ups.models.build import CODEC_FILE, MODEL_FILE, has_codec, network_of, reading_model
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork

_MEAN = "mean"


def write_surrogate(path: Path, artifacts: Mapping[str, Path], trained: Trained) -> None:
    """Write the networks of a run as one file.

    Args:
        artifacts: directories of cache_encode, operator, diffusion and consistency.
        trained: the same run, opened.

    Raises:
        IntegrityError: a network's file is damaged.
        StorageError: the file cannot be written.
    """
    with_codec = artifacts["operator" if has_codec(artifacts["operator"]) else "cache_encode"]
    files = {"codec": with_codec / CODEC_FILE}
    files |= {stage: artifacts[stage] / MODEL_FILE for stage in ("operator", "diffusion", "consistency")}
    tensors: dict[str, Tensor] = {}
    networks: dict[str, Any] = {}
    for network, file in files.items():
        with reading_model(file), safe_open(file, framework="pt") as stored:
            networks[network] = json.loads(stored.metadata()["description"])
            tensors |= {f"{network}/{name}": stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    tensors |= {f"{_MEAN}/{problem}": mean.cpu() for problem, mean in trained.means.items()}
    about = {
        "networks": networks,
        "problems": {name: usage.to_json() for name, usage in trained.usages.items()},
        "evaluation": trained.evaluation.model_dump(mode="json"),
        "seed": trained.seed,
        "fits": {name: fit.to_json() for name, fit in trained.fits.items()},
        "results": trained.results,
        "provenance": trained.provenance,
    }
    header = {"surrogate": canonical_json(about).decode(), "sum": _sum(about, tensors)}
    write_bytes(path, save(tensors, metadata=header))


def read_surrogate(path: Path, device: str) -> Trained:
    """The networks of a file, ready to forecast, and what their use needs.

    Raises:
        IntegrityError: the file is damaged, or holds no surrogate.
    """
    with reading_model(path):
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            about = json.loads(header["surrogate"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if header["sum"] != _sum(about, tensors):
            raise IntegrityError(
                "its bytes are not those that were written", where=str(path), fix="copy or export it again"
            )
        networks = about["networks"]
        models = {
            network: network_of(description, _part(tensors, network), device)
            for network, description in networks.items()
        }
        codec, operator = models["codec"], models["operator"]
        diffusion, consistency = models["diffusion"], models["consistency"]
        assert isinstance(codec, Codec)
        assert isinstance(operator, LatentOperator)
        assert isinstance(diffusion, ResidualNetwork)
        assert isinstance(consistency, ResidualNetwork)
        usages = {
            name: Usage.from_json(values, codec.shapes[name]) for name, values in about["problems"].items()
        }
        evaluation = Evaluation.model_validate(about["evaluation"])
    others = {network: description for network, description in networks.items() if network != "codec"}
    check_alike(networks["codec"], others, dict.fromkeys(others, str(path)))
    samplers = {stage: networks[stage]["sampler"] for stage in ("diffusion", "consistency")}
    surrogate = Surrogate(
        codec, networks["codec"], operator, diffusion, consistency, {}, samplers, evaluation.members
    )
    return Trained(
        surrogate,
        usages,
        _part(tensors, _MEAN),
        evaluation,
        about["seed"],
        # Files of earlier versions have none.
        {name: Fit.from_json(values, device) for name, values in about.get("fits", {}).items()},
        about["results"],
        about["provenance"],
    )


def _part(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    prefix = f"{network}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sum(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(canonical_json(about))
    for name, value in sorted(tensors.items()):
        total.update(name.encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
