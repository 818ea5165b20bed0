"""The codec before it learns anything: lossless where it can be, else as good as principal components are."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from cached import SHAPES, dataset
from command_line import CONFIGS
from tiny import LINE, PROBLEM, SQUARE, build, decoded_frames, encoded_frames, fresh
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ups.config import Configuration, load_configuration
from ups.data.dataset import Dataset
from ups.errors import ConfigurationError
from ups.models.autoencoder import Autoencoder
from ups.models.codec import Codec, ProblemCodec
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres
from ups.stages.autoencoder import normalisation, start_linear
from ups.training.objectives.autoencoder import Normalisation

CPU = torch.device("cpu")
NONE = {"width": 16, "depth": 0, "heads": 2, "ratio": 2}
SIZES = {"width": 16, "depth": 1, "heads": 2, "ratio": 2}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh_codec(shape: ProblemShape, latent_dim: int, corrections: dict[str, int]) -> ProblemCodec:
    """As training starts it, with statistics unlike 0 and 1."""
    codec = fresh(
        "codec", shapes={PROBLEM: shape}, latent_dim=latent_dim, encoder=corrections, decoder=corrections
    )
    assert isinstance(codec, Codec)
    for value in codec.statistics.buffers():
        value.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(3))
    return codec.of(PROBLEM)


SHEET = replace(SQUARE, grid=(8, 12), tokens=(4, 3), boundary="periodic")


@pytest.mark.parametrize("corrections", [NONE, SIZES], ids=["linear", "corrected"])
@pytest.mark.parametrize("surplus", [0, 3])
@pytest.mark.parametrize("shape", [LINE, SQUARE, SHEET, SHAPES["flow"]], ids=lambda shape: shape.equation)
def test_with_as_many_numbers_as_values_a_fresh_codec_loses_nothing(shape, surplus, corrections):
    dim = shape.token_grid.patch_points * shape.channels + surplus
    codec = fresh_codec(shape, dim, corrections)
    fields = normal(5, *shape.grid, shape.channels)
    latents = encoded_frames(codec, fields)
    assert latents.shape == (5, shape.token_grid.token_count, dim)
    expected = fields.flatten(1, -2)
    torch.testing.assert_close(decoded_frames(codec, latents), expected, rtol=1e-5, atol=1e-5)
    centres = cell_centres(shape.grid)
    torch.testing.assert_close(decoded_frames(codec, latents, centres), expected, rtol=1e-5, atol=2e-5)


def test_a_band_limited_field_is_decoded_anywhere():
    codec = fresh_codec(LINE, 4, NONE)

    def waves(x: Tensor) -> Tensor:
        return 0.4 + (2 * torch.pi * x).sin() - 0.5 * (30 * torch.pi * x + 1).cos()  # 15 of 32 points

    fields = waves(cell_centres([32]).double()).float()[None]
    anywhere = torch.rand(300, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = decoded_frames(codec, encoded_frames(codec, fields), anywhere)[0]
    torch.testing.assert_close(found.double(), waves(anywhere), rtol=0, atol=1e-5)


def test_decoding_in_parts_is_decoding_at_once(monkeypatch):
    codec = fresh_codec(SQUARE, 8, SIZES)
    latents, some = normal(7, 16, 8), torch.rand(9, 2)
    whole = decoded_frames(codec, latents), decoded_frames(codec, latents, some)
    monkeypatch.setattr("ups.models.codec._POINTS_AT_ONCE", 2 * 256)
    parts = decoded_frames(codec, latents), decoded_frames(codec, latents, some)
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_whole_trajectories_are_encoded_in_the_frames_of_their_first_states():
    moving = replace(LINE, exact=("galilean", "shift", "reflection"))
    codec = fresh_codec(moving, 4, NONE)
    fields = normal(3, 5, 32, 1)
    latents = codec.encode_trajectories(fields, None, time_step=0.1, parameters={})
    elapsed = 0.1 * torch.arange(5)
    frame = codec.frame(fields[:, 0])
    assert torch.equal(latents, codec.encode(fields, elapsed, frame))
    inside = codec.normalise(frame.enter(fields, elapsed))
    torch.testing.assert_close(codec.normalised_fields(latents), inside, rtol=1e-5, atol=1e-5)
    back = codec.decode(latents, elapsed, frame)
    torch.testing.assert_close(back, frame.leave(codec.denormalise(inside), elapsed), rtol=1e-4, atol=1e-4)


# --- fewer numbers than values --------------------------------------------------------------------


def configured(**overrides: object) -> Configuration:
    linear = {"model.encoder.depth": 0, "model.decoder.depth": 0}
    return load_configuration(CONFIGS / "mix_tiny.yaml", {"execution.device": "cpu"} | linear | overrides)


NAMES = {"waves": "burgers", "flow": "compressible", "map": "darcy"}


def smooth(name: str) -> Dataset:
    """Trajectories whose patches have more in one direction than in another."""
    data = dataset(name, rows=20)
    for axis in range(2, data.fields.ndim - 1):
        for _ in range(4):
            data.fields[:] = (data.fields + np.roll(data.fields, 1, axis=axis)) / 2
    if data.problem.is_map:
        data.fields[:, 0, ..., 1] = 0
    return data


def started(
    name: str, latent_dim: int, **overrides: object
) -> tuple[Autoencoder, Normalisation, Dataset, float]:
    data, called = smooth(name), NAMES[name]
    settings: dict[str, object] = {
        "model.latent.dim": latent_dim,
        "data.problems.compressible.variables": "primitive",
    }
    tokens = {"burgers": 8, "advection": 8, "darcy": 4, "compressible": 4}
    configuration = configured(**(settings | {"model.latent.tokens": tokens} | overrides))
    problem = normalisation(called, data, configuration, CPU)
    model = fresh(
        "autoencoder", shapes={called: problem.shape}, latent_dim=latent_dim, encoder=NONE, decoder=NONE
    )
    assert isinstance(model, Autoencoder)
    return model, problem, data, start_linear(model, called, data, problem, configuration, CPU)


@pytest.mark.parametrize(
    ("name", "latent_dim"), [("waves", 1), ("waves", 3), ("flow", 4), ("flow", 16), ("map", 6)]
)
def test_it_starts_at_the_bound_of_principal_components(name, latent_dim):
    model, problem, data, _ = started(name, latent_dim)
    rows, frames = data.splits["train"], data.fields.shape[1]
    known = torch.from_numpy(data.known).repeat(len(rows), 1)
    inside, _ = problem(torch.from_numpy(data.fields[rows]).flatten(0, 1), known)
    patches = problem.shape.token_grid.patchify(inside).flatten(0, 1).double().numpy()
    singular = np.linalg.svd(patches, compute_uv=False)
    bound = np.sqrt(np.square(singular[latent_dim:]).sum() / np.square(singular).sum())
    with torch.no_grad():
        rebuilt = model(inside, None, NAMES[name], known).view_as(inside)
    error = ((rebuilt - inside).norm() / inside.norm()).item()
    assert error == pytest.approx(bound, rel=0.01)
    assert 0.02 < error < 0.9, "a bound of nothing, or of everything, would prove nothing"
    assert len(inside) == len(rows) * frames


@pytest.mark.parametrize(("name", "values"), [("waves", 4), ("flow", 24), ("map", 32)])
def test_the_floor_says_what_would_be_lossless(name, values):
    *_, left = started(name, values, **{"model.latent.floor": 1e-6})
    assert left < 1e-6
    *_, left = started(name, 2)
    called = NAMES[name]
    started(name, 2, **{"model.latent.floor": 1.001 * left})
    with pytest.raises(ConfigurationError) as caught:
        started(name, 2, **{"model.latent.floor": 0.999 * left})
    tokens = 8 if name == "waves" else 4
    assert f"2 channels on {tokens} tokens per axis leave {left:.2g} of the fields of {called}" in str(
        caught.value
    )
    assert re.match(r"the configuration \w+: model\.latent: ", str(caught.value))
    assert f"fix: raise dim (lossless: {values}) or tokens, or the floor" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_basis_is_given_to_one_problem_and_its_maps_are_transposes():
    model = build("autoencoder", shapes={"one": LINE, "two": LINE})
    assert isinstance(model, Autoencoder)
    before = model.encoder.get_parameter("linear.problem_two.weight").clone()
    basis = torch.linalg.qr(normal(4, 4)).Q
    model.set_basis("one", basis)
    assert torch.equal(model.encoder.get_parameter("linear.problem_one.weight"), basis)
    assert torch.equal(model.decoder.get_parameter("linear.problem_one.weight"), basis.T)
    assert torch.equal(model.encoder.get_parameter("linear.problem_two.weight"), before)


def test_decoding_a_frame_costs_a_fraction_of_an_operator_step():
    """In matrix products, by the demo's networks: on the grid, and at as many points beside it."""
    model = load_configuration(CONFIGS / "burgers_demo.yaml").model
    shapes = {PROBLEM: replace(LINE, grid=(128,), tokens=(model.latent.tokens,))}
    corrections = {"encoder": model.encoder.model_dump(), "decoder": model.decoder.model_dump()}
    codec = fresh("codec", shapes=shapes, latent_dim=model.latent.dim, **corrections)
    network = model.operator.model_dump(exclude={"linear_path", "conserve"})
    operator = fresh("operator", shapes=shapes, latent_dim=model.latent.dim, network=network)
    assert isinstance(codec, Codec)
    latents = normal(1, model.latent.tokens, model.latent.dim)

    def flops(compute: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            compute()
        return counter.get_total_flops()

    step = flops(lambda: operator(latents, torch.zeros(1, 2), PROBLEM))
    beside = cell_centres((128,)) + 0.3 / 128
    for coordinates in (None, beside):
        decoded = flops(lambda at=coordinates: decoded_frames(codec.of(PROBLEM), latents, at))
        assert 0 < decoded < step / 4
