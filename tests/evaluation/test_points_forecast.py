"""Forecasts from values at irregular points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import SHAPES, codec, operator, residual
from test_conditioning import data
from test_predictor import GIVEN, SAMPLERS, USAGES
from tiny import NETWORK, build
from torch import Tensor

from ups.config.stages.evaluate import Evaluation
from ups.errors import ConfigurationError, DataError
from ups.evaluation import result_table
from ups.evaluation.conditioning import Fit
from ups.evaluation.predictor import Predictor
from ups.evaluation.surrogate import Surrogate
from ups.evaluation.trained import Trained
from ups.evaluation.usage import Usage
from ups.models.codec import Codec

POINTS = {"kind": "points", "points": 64, "radius": 0.25, "neighbours": 16, "smoothness": 2} | NETWORK


def of(surrogate: Surrogate, usages: dict[str, Usage] = USAGES) -> Predictor:
    evaluation = Evaluation.model_validate({"members": 3, "ttc": {"members": 2}})
    fits = {"wave": Fit(None, torch.zeros(3))}
    return Predictor(Trained(surrogate, usages, {}, evaluation, 0, fits, [], {"run": "small"}), "cpu")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    own = build("codec", seed=4, scale=0.01, shapes=SHAPES, encoder=POINTS)
    assert isinstance(own, Codec)
    surrogate = Surrogate(
        own, {}, operator(), residual("diffusion"), residual("consistency"), {}, SAMPLERS, members=3
    )
    return of(surrogate)


def scattered(problem: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random places [count, axes], and a wave at them [count]."""
    places = np.random.default_rng(seed).random((count, len(SHAPES[problem].grid)))
    return places, (1.5 + np.sin(2 * np.pi * places.sum(axis=1))).astype(np.float32)


@pytest.mark.parametrize(("problem", "count"), [("wave", 80), ("map", 900)])
def test_a_field_at_enough_points_is_forecast_as_on_the_grid(predictor, problem, count):
    name = GIVEN[problem]
    places, values = scattered(problem, count)
    axes = [np.array(axis) for axis in USAGES[problem].coordinates]
    grid = 1.5 + np.sin(2 * np.pi * sum(np.meshgrid(*axes, indexing="ij")))
    whole = predictor.forecast({name: grid}, problem=problem)
    found = predictor.forecast({name: values}, at=places, problem=problem)
    for field, mean in whole.mean.items():
        assert found.mean[field].shape == mean.shape
        np.testing.assert_allclose(found.mean[field], mean, atol=0.05 * np.abs(mean).max())
    order = np.random.default_rng(1).permutation(count)
    again = predictor.forecast({name: values[order]}, at=places[order], problem=problem)
    for field, mean in found.mean.items():
        np.testing.assert_allclose(again.mean[field], mean, rtol=1e-3, atol=1e-4)


def test_trajectories_may_have_points_of_their_own(predictor):
    sets = [scattered("wave", 80, seed) for seed in (0, 1)]
    places, values = (np.stack(part) for part in zip(*sets, strict=True))
    together = predictor.forecast(values, at=places, problem="wave").mean["u"]
    for row, (own, there) in enumerate(sets):
        alone = predictor.forecast(there, at=own[:, 0], problem="wave").mean["u"]
        np.testing.assert_allclose(together[row : row + 1], alone, rtol=1e-3, atol=1e-5)


def test_conditioning_corrects_the_forecast_from_the_points_that_were_given(predictor):
    """And not from others drawn of their interpolant, as where such a surrogate is scored; here the gates are 0."""
    places, values = scattered("wave", 80)
    for given in ({"fields": values, "at": places}, {"fields": np.sin(2 * np.pi * np.arange(32) / 32)}):
        plain, conditioned = (
            predictor.forecast(**given, problem="wave", model=model).mean["u"]
            for model in ("operator", "ttc")
        )
        np.testing.assert_allclose(conditioned, plain, rtol=0, atol=1e-6)


def test_points_are_where_the_grid_says(predictor):
    """A grid that starts elsewhere, as a strided file's does, moves with its points."""
    places, values = scattered("wave", 80)
    expected = predictor.forecast(values, at=places, problem="wave").mean["u"]
    away = np.array(USAGES["wave"].coordinates[0]) - 0.01
    moved = of(predictor.surrogate, {"wave": replace(USAGES["wave"], coordinates=(tuple(away),))})
    inside = (places - 0.01) % 1
    np.testing.assert_allclose(moved.forecast(values, at=inside).mean["u"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("at", "values", "says"),
    [
        (np.full(80, 1.5), np.ones(80), "1.5 is outside the domain, 0 to 1"),
        (np.linspace(0, 0.4, 80), np.ones(80), "no point within the encoder's radius"),
        (np.linspace(0, 1, 79), np.ones(80), "80 points in 1 trajectories"),
        (np.zeros((3, 80, 1)), np.ones((2, 80)), "80 points in 2 trajectories"),
        (np.full(80, np.nan), np.ones(80), r"forecast: at: has 80 coordinates that are not finite"),
        (["here"] * 80, np.ones(80), r"(?s)forecast: at: is no array of numbers.*give \[points, 1\]"),
        ([[0.1], [0.2, 0.3]], np.ones(2), "forecast: at: is no array of numbers"),
        (np.zeros((0, 80, 1)), np.ones(80), r"has shape \(0, 80, 1\).*80 points in 1 trajectories"),
        (np.linspace(0, 1, 80), np.ones((1, 2, 80)), r"has shape \(1, 2, 80\)"),
        (np.linspace(0, 1, 80), np.full(80, np.nan), "not finite"),
    ],
)
def test_bad_points_are_named(predictor, at, values, says):
    with pytest.raises(DataError, match=says):
        predictor.forecast(values, at=at, problem="wave")


def test_symmetries_are_measured_on_forecasts_from_points_too(predictor, monkeypatch):
    started: list[Tensor] = []

    def measured(_: object, __: object, initial: Tensor, *___: object, **____: object) -> dict[str, float]:
        started.append(initial)
        return {}

    monkeypatch.setattr(result_table, "equivariance_errors", measured)
    given = data()
    result_table.score_all(predictor.surrogate, given, batch_size=8, seed=0)
    bound = predictor.surrogate.codec.of("wave")
    seen = bound.seen(given.truth[:4, :1])[:, 0]
    torch.testing.assert_close(started, [seen], rtol=1e-4, atol=1e-5)
    assert (seen - given.truth[:4, 0]).abs().max() > 1e-3


def test_a_surrogate_of_whole_frames_says_that_it_is_one():
    surrogate = Surrogate(
        codec(), {}, operator(), residual("diffusion"), residual("consistency"), {}, SAMPLERS, members=3
    )
    with pytest.raises(ConfigurationError, match="encode fields on its grid"):
        of(surrogate).forecast(np.ones(80), at=np.linspace(0, 1, 80), problem="wave")
