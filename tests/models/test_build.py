"""A model file is all that is needed to rebuild the model, and nothing in it is ever executed."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import (
    LEADS,
    LINE,
    NETWORK,
    PROBLEM,
    SQUARE,
    build,
    decoded_frames,
    describe,
    encoded_frames,
    fresh,
    random_batch,
    raw_residual,
    waves,
)
from torch import Tensor, nn

from ups.errors import IntegrityError
from ups.models.autoencoder import Autoencoder
from ups.models.build import load_model, problem_shapes, save_model
from ups.models.codec import Codec
from ups.models.forecast import Forecast
from ups.models.residual import ResidualNetwork
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres

MOVED = replace(LINE, equation="compressible1d", variables="conserved", exact=("shift", "reflection"))
KINDS = ["autoencoder", "codec", "operator", "diffusion", "consistency"]


TRANSFORMER = describe("operator")["network"]


def outputs(model: nn.Module) -> Tensor:
    batch, fields, centres = random_batch(3), waves(3, 1)[:, 0], cell_centres([32])
    assert batch.latents is not None
    assert batch.forecasts is not None
    state = batch.latents[:, 0]
    match model:
        case Autoencoder():
            return model(fields, centres, PROBLEM)
        case Codec():
            codec = model.of(PROBLEM)
            return decoded_frames(codec, encoded_frames(codec, fields), centres)
        case ResidualNetwork():
            raw = raw_residual(model, batch.forecasts, batch.latents, batch.scalars, PROBLEM)
            return model.corrections(raw[:, None], Forecast.single(batch.forecasts), PROBLEM, 0)
    return model(state, batch.scalars, PROBLEM)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_computes_the_same_with_nothing_but_its_file(tmp_path, kind):
    """Its sizes are not the defaults of any configuration: they can come from the file alone."""
    odd = {"width": 24, "depth": 2, "heads": 3, "ratio": 1}
    sizes: dict[str, Any] = {
        "network": {"width": 24, "blocks": 2, "dilations": [2], "leads_per_position": 1},
        "leads": {PROBLEM: LEADS},
    }
    if kind in {"autoencoder", "codec"}:
        sizes = {"encoder": odd, "decoder": NETWORK}
    elif kind == "operator":
        sizes = {"network": {"kind": "hybrid", "dilations": [2, 1], "width": 24, "heads": 3, "ratio": 1}}
        sizes |= {
            "linear_path": "trained",
            "conserve": True,
            "time_steps": [1, 3],
            "average": {PROBLEM: ["shift"]},
        }
    model, description = build(kind, **sizes), describe(kind, **sizes) | {"note": "kept"}
    save_model(tmp_path / "model.safetensors", model, description)
    loaded, stored = load_model(tmp_path / "model.safetensors")
    assert stored == description
    assert torch.equal(outputs(loaded), outputs(model.requires_grad_(False)))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("shape", [LINE, SQUARE, replace(SQUARE, boundary="outflow", scored=(0, 1)), MOVED])
def test_a_shape_survives_its_way_through_json(shape):
    assert ProblemShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    assert problem_shapes({"problems": {"a": shape.to_json(), "b": LINE.to_json()}}) == {
        "a": shape,
        "b": LINE,
    }


def test_averaged_weights_replace_the_models_own(tmp_path):
    model, average = build("operator", seed=1), build("operator", seed=2)
    save_model(
        tmp_path / "model.safetensors",
        model,
        describe("operator"),
        dict(average.named_parameters()),
    )
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(outputs(loaded), outputs(average.requires_grad_(False)))


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_model(tmp_path / name, fresh("operator"), describe("operator"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch.save"])
def test_a_pickle_is_refused_without_being_opened(tmp_path, writer):
    path, exploded = tmp_path / "model.safetensors", tmp_path / "exploded"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Bomb(exploded)))
    else:
        torch.save({"weights": Bomb(exploded)}, path)
    with pytest.raises(IntegrityError, match="is not a model"):
        load_model(path)
    assert not exploded.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_half_a_file_is_refused(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_model(path, build("operator"), describe("operator"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "perceiver"},
        {"latent_dim": 5},
        {"problems": {PROBLEM: LINE.to_json() | {"tokens": [5]}}},
        {"problems": {PROBLEM: LINE.to_json() | {"equation": "heat1d"}}},
        {"problems": {PROBLEM: LINE.to_json() | {"equation": "compressible1d"}}},
        {"problems": {PROBLEM: LINE.to_json() | {"boundary": "outflow"}}},
        {"problems": {PROBLEM: SQUARE.to_json()}},
        {"problems": {PROBLEM: LINE.to_json() | {"viscosity": 1}}},
        {"problems": {"advection1d": LINE.to_json()}},
        {"problems": {PROBLEM: LINE.to_json(), "darcy2d": SQUARE.to_json()}},
        {"problems": [PROBLEM]},
        {"network": TRANSFORMER | {"depth": 2}},
        {"network": TRANSFORMER | {"dropout": 0.1}},
        {"network": TRANSFORMER | {"kind": "fourier"}},
        {"network": NETWORK},
        {"linear_path": {PROBLEM: "trained"}},
    ],
)
def test_weights_that_do_not_fit_their_description_are_refused(tmp_path, changes):
    path = tmp_path / "model.safetensors"
    save_model(path, build("operator"), describe("operator"))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(state, path, metadata={"description": json.dumps(describe("operator") | changes)})
    with pytest.raises(IntegrityError, match="is not a model"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"description": "{"}, {"description": "[]"}])
def test_a_file_without_a_description_is_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file(build("operator").state_dict(), path, metadata=metadata)
    with pytest.raises(IntegrityError, match="is not a model"):
        load_model(path)
