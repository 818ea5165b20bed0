"""What the networks know before they learn: periodicity, shifts, the meaning of a query, persistence.

All weights are random. Tolerances are those of float32 after a few hundred additions: 1e-5.
"""

from dataclasses import replace

import pytest
import torch
from tiny import (
    GRID,
    LATENT_DIM,
    LEADS,
    PROBLEM,
    SQUARE,
    TOKENS,
    build,
    decoded_frames,
    encoded_frames,
    fresh,
    random_batch,
    raw_residual,
    waves,
)
from torch import Tensor

from ups.models.autoencoder import Autoencoder
from ups.models.codec import Codec
from ups.models.residual import ResidualNetwork
from ups.models.rotary import integer_frequencies, rotate, rotation
from ups.models.token_grid import cell_centres

PATCH = GRID // TOKENS
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def autoencoder() -> Autoencoder:
    model = build("autoencoder")
    assert isinstance(model, Autoencoder)
    return model.requires_grad_(False)


def fields(seed: int = 0) -> Tensor:
    return waves(3, 1, seed=seed)[:, 0]


def latents(seed: int = 0) -> Tensor:
    return torch.randn(3, TOKENS, LATENT_DIM, generator=torch.Generator().manual_seed(seed))


def spread(values: Tensor) -> float:
    """Deviation over tokens or points: an equality of constants would say nothing."""
    return values.std(dim=1).mean().item()


@pytest.mark.parametrize("patches", [1, 3, -2])
def test_the_encoder_commutes_with_shifts_by_patches(patches):
    encoder = autoencoder().encoder
    tokens = encoder(fields(), PROBLEM)
    assert spread(tokens) > 0.1
    torch.testing.assert_close(
        encoder(fields().roll(patches * PATCH, dims=1), PROBLEM), tokens.roll(patches, dims=1), **CLOSE
    )
    unaligned = encoder(fields().roll(1, dims=1), PROBLEM)
    assert all((unaligned - tokens.roll(n, dims=1)).abs().max() > 1e-2 for n in range(TOKENS))


@pytest.mark.parametrize("patches", [1, 3, -2])
def test_the_decoder_commutes_with_shifts_by_patches(patches):
    decoder = autoencoder().decoder
    values = decoder(latents(), cell_centres([GRID]), PROBLEM)
    assert spread(values) > 0.05
    torch.testing.assert_close(
        decoder(latents().roll(patches, dims=1), cell_centres([GRID]), PROBLEM),
        values.roll(patches * PATCH, dims=1),
        **CLOSE,
    )


@pytest.mark.parametrize("kind", ["operator", "diffusion"])
def test_the_latent_networks_commute_with_shifts_of_tokens(kind):
    model = build(kind).requires_grad_(False)
    scalars = random_batch(3).scalars
    leads = [torch.stack([latents(3 * part + lead) for lead in range(LEADS)], dim=1) for part in range(2)]

    def apply(shift: int) -> Tensor:
        if kind == "operator":
            return model(latents().roll(shift, dims=1), scalars, PROBLEM)
        assert isinstance(model, ResidualNetwork)
        forecast, y = (tokens.roll(shift, dims=2) for tokens in leads)
        return raw_residual(model, forecast, y, scalars, PROBLEM).transpose(1, 2)

    assert spread(apply(0)) > 0.1
    torch.testing.assert_close(apply(3), apply(0).roll(3, dims=1), **CLOSE)


def test_tokens_are_told_apart_by_their_distance():
    model = build("operator").requires_grad_(False)
    scalars = random_batch(3).scalars
    permutation = torch.tensor([0, 2, 1, *range(3, TOKENS)])
    permuted = model(latents()[:, permutation], scalars, PROBLEM)
    assert (permuted - model(latents(), scalars, PROBLEM)[:, permutation]).abs().max() > 1e-2


def test_the_decoder_reads_each_query_on_its_own():
    decoder = autoencoder().decoder
    queries = torch.rand(50, 1, generator=torch.Generator().manual_seed(0))
    values = decoder(latents(), queries, PROBLEM)
    permutation = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        decoder(latents(), queries[permutation], PROBLEM), values[:, permutation], **CLOSE
    )
    torch.testing.assert_close(decoder(latents(), queries[:7], PROBLEM), values[:, :7], **CLOSE)


@pytest.mark.parametrize("shift", [1.0, -1.0, 3.0])
def test_decoding_is_periodic(shift):
    decoder = autoencoder().decoder
    queries = torch.rand(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        decoder(latents(), queries + shift, PROBLEM), decoder(latents(), queries, PROBLEM), **CLOSE
    )


def test_decoding_is_continuous_across_patches_and_the_seam():
    decoder = autoencoder().decoder
    edges = torch.arange(TOKENS, dtype=torch.float64)[:, None] / TOKENS
    left, right = decoder(latents(), edges - 1e-7, PROBLEM), decoder(latents(), edges + 1e-7, PROBLEM)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["operator", "diffusion", "consistency"])
def test_a_fresh_network_says_nothing(kind):
    model = fresh(kind)
    scalars = random_batch(3).scalars
    if kind == "operator":
        assert torch.equal(model(latents(), scalars, PROBLEM), latents()), "a fresh operator is persistence"
    else:
        assert isinstance(model, ResidualNetwork)
        batch = random_batch(3)
        assert batch.latents is not None
        assert batch.forecasts is not None
        raw = raw_residual(model, batch.forecasts, batch.latents, scalars, PROBLEM)
        assert torch.equal(raw, torch.zeros_like(raw))


def test_the_networks_depend_on_their_scalars_and_each_sample_on_its_own():
    model = build("operator").requires_grad_(False)
    scalars = torch.tensor([[-3.0, -4.6], [-3.0, -2.3], [-3.0, -4.6]])
    same_state = latents()[:1].expand(3, -1, -1)
    first, second, third = model(same_state, scalars, PROBLEM)
    torch.testing.assert_close(first, third, **CLOSE)
    assert (first - second).abs().max() > 1e-2


def test_a_codec_normalises_there_and_back():
    frozen = build("codec")
    assert isinstance(frozen, Codec)
    codec = frozen.of(PROBLEM)
    statistics = codec.statistics
    torch.testing.assert_close(codec.denormalise(codec.normalise(fields())), fields(), **CLOSE)
    z = encoded_frames(codec, fields())
    raw = frozen.autoencoder.encoder((fields() - statistics.field_mean) / statistics.field_deviation, PROBLEM)
    torch.testing.assert_close(z * statistics.latent_deviation + statistics.latent_mean, raw, **CLOSE)
    coordinates = cell_centres([GRID])
    expected = (
        frozen.autoencoder.decoder(raw, coordinates, PROBLEM) * statistics.field_deviation
        + statistics.field_mean
    )
    torch.testing.assert_close(decoded_frames(codec, z, coordinates), expected, **CLOSE)
    torch.testing.assert_close(decoded_frames(codec, z), expected, **CLOSE)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_two_axes_commute_with_shifts_along_either():
    sheet = replace(SQUARE, grid=(8, 12), boundary="periodic")
    model = build("autoencoder", shapes={"sheet": sheet}).requires_grad_(False)
    assert isinstance(model, Autoencoder)
    torch.manual_seed(0)
    u = torch.randn(2, 8, 12, 2)
    tokens = model.encoder(u, "sheet").view(2, 4, 4, LATENT_DIM)
    centres = cell_centres([8, 12])
    values = model.decoder(tokens.flatten(1, 2), centres, "sheet").view(2, 8, 12, 2)
    assert tokens.std(dim=(1, 2)).min() > 0.05
    for shift, patches in [((2, 0), (1, 0)), ((0, -3), (0, -1)), ((2, -3), (1, -1))]:
        shifted = model.encoder(u.roll(shift, dims=(1, 2)), "sheet").view(2, 4, 4, LATENT_DIM)
        torch.testing.assert_close(shifted, tokens.roll(patches, dims=(1, 2)), **CLOSE)
        moved = model.decoder(shifted.flatten(1, 2), centres, "sheet").view(2, 8, 12, 2)
        torch.testing.assert_close(moved, values.roll(shift, dims=(1, 2)), **CLOSE)


def test_rotary_scores_depend_on_the_difference_of_positions():
    positions = torch.tensor([[0.1], [0.4], [0.85]], dtype=torch.float64)
    query, key = torch.randn(2, 3, 8)

    def scores(offset: float) -> Tensor:
        table = rotation(positions + offset, 8, 4)
        return rotate(query, table) @ rotate(key, table).T

    torch.testing.assert_close(scores(0.37), scores(0.0), **CLOSE)
    torch.testing.assert_close(scores(5.0), scores(0.0), **CLOSE)


def test_rotary_frequencies_are_integers_up_to_the_highest():
    assert integer_frequencies(4, 8) == [1, 2, 4, 8]
    assert integer_frequencies(1, 8) == [1]
    assert integer_frequencies(3, 1) == [1, 1, 1]
