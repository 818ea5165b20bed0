"""A rollout is the step repeated by hand; a generative model corrects the whole of it once; noise is the only chance."""

import math

import pytest
import torch
from small_models import DIM, KNOWN, SCALARS, SHAPES, codec, first_frames, operator, residual
from torch import Tensor

from ups.errors import DataError
from ups.evaluation.correction import resampled
from ups.evaluation.ensembles import (
    PastErrors,
    consistency_forecasters,
    diffusion_forecasters,
    dressed_forecasters,
)
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, operator_forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.models import codec as codec_module
from ups.models.edm import midpoint_sample, sampling_angles
from ups.models.evolution import rollout
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork

MEMBERS = 3
SAMPLER = {"steps": 2, "sigma_min": 0.05, "centre": 3.0}
STUDENT = {"sigma_min": 0.05, "second_sigma": 3.0}
STEPS = {"wave": 3, "map": 1}
PARAMETERS = {"wave": {"nu": 0.5}, "map": {"beta": 0.5}}
PROBABILISTIC = ("operator_dressed", "operator_dressed_scaled", "diffusion", "consistency_1", "consistency_2")
both = pytest.mark.parametrize("problem", list(SHAPES))


def past_residuals(problem: str) -> Tensor:
    shape = (5, STEPS[problem], SHAPES[problem].token_grid.token_count, DIM)
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(9))


def forecasters(
    problem: str,
    model: LatentOperator | None = None,
    diffusion: ResidualNetwork | None = None,
    consistency: ResidualNetwork | None = None,
) -> dict[str, Forecaster]:
    model, diffusion = model or operator(), diffusion or residual("diffusion")
    consistency = consistency or residual("consistency")
    past = PastErrors(past_residuals(problem), 10 * past_residuals(problem))

    def made() -> OperatorForecasts:
        return OperatorForecasts(model, codec().of(problem))

    rows = [
        operator_forecaster(made()),
        *dressed_forecasters(made(), diffusion, past, members=MEMBERS),
        *diffusion_forecasters(made(), diffusion, members=MEMBERS, **SAMPLER),
        *consistency_forecasters(made(), consistency, members=MEMBERS, **STUDENT),
    ]
    return {forecaster.name: forecaster for forecaster in rows}


def roll(forecaster: Forecaster, problem: str, *, seed: int = 0, count: int = 2) -> Tensor:
    return decoded_rollout(
        forecaster,
        codec().of(problem),
        first_frames(problem, count),
        KNOWN[problem],
        SCALARS[problem],
        STEPS[problem],
        time_step=0.05,
        parameters=PARAMETERS[problem],
        generator=torch.Generator().manual_seed(seed),
    )


def latents(problem: str, count: int = 2) -> tuple[Tensor, Tensor]:
    """First latents and scalars."""
    tokens = SHAPES[problem].token_grid.token_count
    first = torch.randn(count, tokens, DIM, generator=torch.Generator().manual_seed(2))
    return first, SCALARS[problem].expand(count, -1)


@both
def test_a_rollout_is_one_step_after_the_other_in_latents(problem):
    first, scalars = latents(problem)
    rolled = operator_forecaster(OperatorForecasts(operator(), codec().of(problem))).rollout(
        first, scalars, STEPS[problem], torch.Generator()
    )
    assert rolled.shape[:3] == (2, 1, STEPS[problem])
    state = first
    for frame in rolled[:, 0].unbind(dim=1):
        state = operator()(state, scalars, problem)
        torch.testing.assert_close(frame, state, rtol=1e-5, atol=1e-5)


def test_what_a_first_frame_does_not_hold_is_not_seen():
    frames = first_frames("map", 2)
    spoilt = frames + torch.tensor([0.0, 9.0])
    forecaster = operator_forecaster(OperatorForecasts(operator(), codec().of("map")))

    def rolled(initial: Tensor, known: Tensor | None) -> Tensor:
        return decoded_rollout(
            forecaster, codec().of("map"), initial, known, SCALARS["map"], 1,
            time_step=1.0, parameters=PARAMETERS["map"], generator=torch.Generator(),
        )  # fmt: skip

    torch.testing.assert_close(rolled(spoilt, KNOWN["map"]), rolled(frames, KNOWN["map"]))
    assert (rolled(spoilt, None) - rolled(frames, None)).abs().max() > 1e-3
    assert (rolled(frames, None) - rolled(frames, KNOWN["map"])).abs().max() > 1e-3


@both
def test_a_forecast_does_not_depend_on_how_much_is_decoded_at_once(problem, monkeypatch):
    forecaster = forecasters(problem)["diffusion"]
    whole = roll(forecaster, problem, count=3)
    monkeypatch.setattr(codec_module, "_POINTS_AT_ONCE", 2 * math.prod(SHAPES[problem].grid) + 1)
    torch.testing.assert_close(roll(forecaster, problem, count=3), whole, rtol=1e-5, atol=1e-5)


@both
def test_diffusion_adds_the_sampled_residual_of_the_whole_forecast_once(problem):
    first, given = latents(problem)
    model, network = operator(), residual("diffusion")
    forecaster = forecasters(problem)["diffusion"]
    found = forecaster.rollout(first, given, STEPS[problem], torch.Generator().manual_seed(3))
    forecasts = Forecast.single(rollout(lambda z: model(z, given, problem), first, STEPS[problem]))
    many = forecasts.mean.repeat_interleave(MEMBERS, dim=0)
    noise = torch.randn(many.shape, generator=torch.Generator().manual_seed(3))
    context, conditions = (
        values.repeat_interleave(MEMBERS, dim=0) for values in network.conditioning(forecasts, given, problem)
    )
    angles = sampling_angles(2, sigma_min=0.05, centre=3.0)
    samples = midpoint_sample(lambda y, a: network(y, a, context, conditions, problem), noise, angles)
    residuals = network.in_deviations(samples, problem).unflatten(0, (2, MEMBERS))
    corrections = network.corrections(residuals, forecasts, problem, 0)
    expected = forecasts.mean[:, None] + model.conserving(corrections, problem)
    torch.testing.assert_close(found, expected)
    assert (found - forecasts.mean[:, None]).abs().max() > 0.1


def test_corrections_keep_what_the_operator_keeps():
    model, (first, given) = operator(), latents("wave")
    model.conserve = True
    mass = model.get_buffer("mass_problem_wave")
    mass.copy_(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    for name, forecaster in forecasters("wave", model).items():
        if name != "operator_dressed":  # past errors of an operator that keeps it would keep it as well
            rolled = forecaster.rollout(first, given, STEPS["wave"], torch.Generator().manual_seed(0))
            kept = rolled.mean(dim=-2) @ mass.T
            start = (first.mean(dim=1) @ mass.T)[:, None, None]
            torch.testing.assert_close(kept, start.expand_as(kept), rtol=1e-4, atol=1e-4)


@both
def test_the_dressed_operator_has_past_errors_as_they_were_or_scaled(problem):
    first, given = latents(problem)
    network, made = residual("diffusion"), forecasters(problem)
    forecasts = Forecast.single(rollout(lambda z: operator()(z, given, problem), first, STEPS[problem]))
    layout = SHAPES[problem].token_grid
    drawn = resampled(past_residuals(problem), 2, MEMBERS, layout, torch.Generator().manual_seed(4))
    plain, scaled = (
        made[name].rollout(first, given, STEPS[problem], torch.Generator().manual_seed(4))
        - forecasts.mean[:, None]
        for name in ("operator_dressed", "operator_dressed_scaled")
    )
    torch.testing.assert_close(plain, drawn, rtol=1e-3, atol=1e-4)
    in_deviations = scaled / network.deviation(forecasts, problem)[:, None]
    torch.testing.assert_close(in_deviations, 10 * drawn, rtol=1e-3, atol=1e-3)


@both
def test_fewer_steps_are_the_first_of_all_and_more_are_refused(problem):
    first, given = latents(problem)
    for name in ("diffusion", "operator_dressed", "consistency_2"):
        forecaster = forecasters(problem)[name]

        def rolled(steps: int, forecaster: Forecaster = forecaster) -> Tensor:
            return forecaster.rollout(first, given, steps, torch.Generator().manual_seed(1))

        whole = rolled(STEPS[problem])
        for steps in range(1, STEPS[problem]):
            assert torch.equal(rolled(steps), whole[:, :, :steps])
        with pytest.raises(DataError, match=f"{STEPS[problem] + 1} steps.*learnt for {STEPS[problem]}"):
            rolled(STEPS[problem] + 1)


@both
@pytest.mark.parametrize("name", ["diffusion_zero_noise", "diffusion_mean"])
def test_the_controls_leave_nothing_to_chance(problem, name):
    made = forecasters(problem)
    control = made[name]
    assert control.members == 1
    assert torch.equal(roll(control, problem, seed=1), roll(control, problem, seed=2))
    noisy = made["diffusion"]
    assert not torch.equal(roll(noisy, problem, seed=1), roll(noisy, problem, seed=2))


@both
def test_an_ensemble_is_a_function_of_its_seed_and_its_members_differ(problem):
    made = forecasters(problem)
    for name in PROBABILISTIC:
        rolled = roll(made[name], problem)
        shape = SHAPES[problem]
        assert rolled.shape == (2, MEMBERS, STEPS[problem], math.prod(shape.grid), shape.channels)
        assert torch.equal(rolled, roll(made[name], problem)), name
        assert (rolled.std(dim=1).amax(dim=(2, 3)) > 1e-3).all(), name


@both
def test_calls_are_counted_as_they_happen(problem):
    steps_called = samples_called = 0

    def count_step(*_) -> None:
        nonlocal steps_called
        steps_called += 1

    def count_sample(*_) -> None:
        nonlocal samples_called
        samples_called += 1

    model, diffusion, consistency = operator(), residual("diffusion"), residual("consistency")
    model.register_forward_hook(count_step)
    diffusion.register_forward_hook(count_sample)
    consistency.register_forward_hook(count_sample)
    first, given = latents(problem)
    for name in forecasters(problem):
        forecaster = forecasters(problem, model, diffusion, consistency)[name]
        steps_called = samples_called = 0
        forecaster.rollout(first, given, STEPS[problem], torch.Generator())
        assert steps_called == STEPS[problem] * forecaster.calls_per_step, forecaster.name
        assert samples_called == forecaster.calls_per_member, forecaster.name


def test_one_forecast_serves_all_rows_which_all_owe_its_time():
    first, given = latents("wave")
    calls = 0

    def count(*_) -> None:
        nonlocal calls
        calls += 1

    model = operator()
    model.register_forward_hook(count)
    shared = OperatorForecasts(model, codec().of("wave"))
    diffusion, past = residual("diffusion"), PastErrors(past_residuals("wave"), past_residuals("wave"))
    rows = [
        operator_forecaster(shared),
        *dressed_forecasters(shared, diffusion, past, members=MEMBERS),
        *diffusion_forecasters(shared, diffusion, members=MEMBERS, **SAMPLER),
    ]
    separate = forecasters("wave")
    shared_seconds = []
    for row in rows:
        rolled = row.rollout(first, given, STEPS["wave"], torch.Generator().manual_seed(1))
        expected = separate[row.name].rollout(first, given, STEPS["wave"], torch.Generator().manual_seed(1))
        assert torch.equal(rolled, expected) == (row.name != "operator_dressed_scaled")
        shared_seconds.append(row.shared_seconds())
    assert calls == STEPS["wave"]
    assert shared_seconds[0] == 0
    assert len(set(shared_seconds[1:])) == 1
    assert shared_seconds[1] > 0
    assert rows[0].shared_seconds() == 0, "counted once"
    other = operator_forecaster(shared).rollout(first + 1, given, STEPS["wave"], torch.Generator())
    assert calls == 2 * STEPS["wave"]
    assert not torch.equal(other, rolled[:, :1])
