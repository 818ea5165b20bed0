"""From plain descriptions to networks, and from network files back to networks.

A description is the complete list of constructor arguments, stored in the file's header beside the
weights, so that whoever loads a model rebuilds exactly the architecture that was trained: no configuration
file can disagree with it.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ups.errors import IntegrityError
from ups.models.codec import Codec
from ups.models.shape import ProblemShape

MODEL_FILE = "model.safetensors"
"""Name of the network in the artifact of a training stage."""
CODEC_FILE = "codec.safetensors"
"""Name of the codec in the artifact of the cache, and of an operator that was trained with it."""

Kind = Literal["autoencoder", "codec", "operator", "diffusion", "consistency"]
# Found by name: a stage depends on the kinds of model that it imports, and on no other (see `ups.artifacts.identity`).
_HOMES: dict[Kind, str] = {
    "autoencoder": "ups.models.autoencoder",
    "codec": "ups.models.codec",
    "operator": "ups.models.operators",
    "diffusion": "ups.models.residual",
    "consistency": "ups.models.residual",
}
Description = dict[str, Any]
"""{"kind": Kind, "problems": {...}, "latent_dim": ..., ...}: see `build_model` for the rest per kind."""


def build_model(description: Description) -> nn.Module:
    """Build the network of a description, freshly initialised.

    All kinds: problems (name to the fields of `ProblemShape`), latent_dim.
    autoencoder, codec: encoder, decoder (width, depth, heads, ratio).
    operator: network (kind and sizes, see `ups.models.operators`), linear_path ("trained", "frozen", "alone" or
        "exact", by problem; those without are not named), conserve, time_steps (in frames), average (symmetries by problem).
    diffusion, consistency: network (width, blocks, dilations, leads_per_position), leads (numbers of leads by
        problem), sampler (arguments of how it is sampled, which its users need besides the network).
    """
    home = importlib.import_module(_HOMES[description["kind"]])
    return home.build(description, problem_shapes(description))


def problem_shapes(description: Description) -> dict[str, ProblemShape]:
    """Shapes of the problems that a model was made for."""
    return {name: ProblemShape.from_json(values) for name, values in description["problems"].items()}


def save_model(
    path: Path, model: nn.Module, description: Description, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a model with its description; `weights` replace its parameters (the averaged ones, say)."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for name, value in (weights or {}).items():
        state[name] = value.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"description": json.dumps(description, sort_keys=True)})


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, Description]:
    """Rebuild a model from its file, in evaluation mode and without gradients.

    Raises:
        IntegrityError: the file is no model file, or its weights do not fit its description.
    """
    with reading_model(path):
        with safe_open(path, framework="pt") as file:
            description: Description = json.loads(file.metadata()["description"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return network_of(description, state, device), description


def network_of(
    description: Description, state: Mapping[str, Tensor], device: torch.device | str
) -> nn.Module:
    """A network with its weights, in evaluation mode and without gradients; for the inside of `reading_model`."""
    model = build_model(description)
    model.load_state_dict(state)
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def reading_model(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file of networks is an error of the file.

    Raises:
        IntegrityError: the file is no model file, or its weights do not fit its description.
    """
    try:
        yield
    except (
        SafetensorError, KeyError, TypeError, AttributeError, ValueError, RuntimeError, AssertionError
    ) as error:  # fmt: skip
        raise IntegrityError(f"is not a model of this library: {error}", where=str(path)) from error


def codec_of_operator(
    artifacts: Mapping[str, Path], device: torch.device | str = "cpu"
) -> tuple[Codec, Description]:
    """The codec of a trained operator: the one that was trained with it, or that of the cache.

    artifacts: directories of operator and cache_encode.

    Raises:
        IntegrityError: see `load_codec`.
    """
    own = has_codec(artifacts["operator"])
    return load_codec(artifacts["operator" if own else "cache_encode"], device)


def has_codec(artifact: Path) -> bool:
    """Whether an artifact brings a codec with it."""
    return (artifact / CODEC_FILE).exists()


def load_codec(artifact: Path, device: torch.device | str = "cpu") -> tuple[Codec, Description]:
    """The codec of a cache artifact, or of an operator that was trained with it.

    Raises:
        IntegrityError: the file is damaged or holds another kind of network.
    """
    path = artifact / CODEC_FILE
    codec, description = load_model(path, device)
    if not isinstance(codec, Codec):
        raise IntegrityError(f"holds a network of kind {description['kind']}, not a codec", where=str(path))
    return codec, description
