"""A rollout is the step repeated by hand; ensemble members go their own ways; noise is the only chance."""

import pytest
import torch
from small_models import DIM, KNOWN, SCALARS, SHAPES, codec, first_frames, held_known, operator, residual
from torch import Tensor

from ups.diffusion.edm import denoise, heun_sample, noise_levels
from ups.inference import rollout
from ups.inference.forecaster import (
    Forecaster,
    consistency_forecasters,
    diffusion_forecasters,
    operator_forecaster,
)
from ups.inference.rollout import decoded_rollout
from ups.models.token_grid import cell_centres

MEMBERS, SIGMA_MIN, SIGMA_MAX = 3, 0.02, 10.0
STEPS = {"wave": 4, "map": 1}
both = pytest.mark.parametrize("problem", list(SHAPES))


def centres(problem: str) -> Tensor:
    return cell_centres(SHAPES[problem].grid)


def forecasters(problem: str) -> dict[str, Forecaster]:
    levels = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "members": MEMBERS}
    made = [
        operator_forecaster(operator(), problem),
        *diffusion_forecasters(operator(), residual("diffusion"), problem, steps=2, rho=7.0, **levels),
        *consistency_forecasters(operator(), residual("consistency"), problem, second_sigma=0.8, **levels),
    ]
    return {forecaster.name: forecaster for forecaster in made}


def roll(
    forecaster: Forecaster, problem: str, *, seed: int = 0, members: int | None = None, count: int = 2
) -> Tensor:
    return decoded_rollout(
        forecaster.step,
        codec().of(problem),
        first_frames(problem, count),
        KNOWN[problem],
        SCALARS[problem],
        STEPS[problem],
        centres(problem),
        members=members or forecaster.members,
        generator=torch.Generator().manual_seed(seed),
    )


@both
def test_a_rollout_is_one_step_after_the_other_in_latents(problem):
    bound = codec().of(problem)
    state = bound.encode(first_frames(problem, 2), held_known(problem, 2))
    rolled = roll(operator_forecaster(operator(), problem), problem)[:, 0]
    assert rolled.shape[1] == STEPS[problem]
    for frame in rolled.unbind(dim=1):
        state = operator()(state, SCALARS[problem].expand(2, -1), problem)
        torch.testing.assert_close(frame, bound.decode(state, centres(problem)), rtol=1e-5, atol=1e-5)
    assert frame.std() > 1e-2


def test_what_a_first_frame_does_not_hold_is_not_seen():
    bound = codec().of("map")
    frames = first_frames("map", 2)
    spoilt = frames + torch.tensor([0.0, 9.0])
    step = operator_forecaster(operator(), "map").step

    def rolled(initial: Tensor, known: Tensor | None) -> Tensor:
        return decoded_rollout(
            step, bound, initial, known, SCALARS["map"], 1, centres("map"), generator=torch.Generator()
        )

    torch.testing.assert_close(rolled(spoilt, KNOWN["map"]), rolled(frames, KNOWN["map"]))
    assert (rolled(spoilt, None) - rolled(frames, None)).abs().max() > 1e-3
    assert (rolled(frames, None) - rolled(frames, KNOWN["map"])).abs().max() > 1e-3


@both
def test_a_forecast_does_not_depend_on_how_much_is_decoded_at_once(problem, monkeypatch):
    forecaster = forecasters(problem)["diffusion"]
    whole = roll(forecaster, problem, count=3)
    monkeypatch.setattr(rollout, "_POINTS_AT_ONCE", 2 * len(centres(problem)) + 1)
    torch.testing.assert_close(roll(forecaster, problem, count=3), whole, rtol=1e-5, atol=1e-5)


@both
def test_a_diffusion_step_adds_the_sampled_residual_in_the_units_of_the_latents(problem):
    z = codec().of(problem).encode(first_frames(problem, 2), held_known(problem, 2))
    given = SCALARS[problem].expand(2, -1)
    stepped = forecasters(problem)["diffusion"].step(z, given, torch.Generator().manual_seed(3))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    prediction, model = operator()(z, given, problem), residual("diffusion")
    levels = noise_levels(2, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, rho=7.0)
    sampled = heun_sample(
        lambda x, sigma: denoise(model, x, sigma, prediction, z, given, problem), noise, levels
    )
    torch.testing.assert_close(stepped, prediction + sampled * model.deviation(problem))
    assert (stepped - prediction).abs().max() > 0.1


@both
def test_the_control_without_noise_leaves_nothing_to_chance(problem):
    made = forecasters(problem)
    control = made["diffusion_zero_noise"]
    assert control.members == 1
    assert torch.equal(roll(control, problem, seed=1), roll(control, problem, seed=2))
    noisy = made["diffusion"]
    assert not torch.equal(roll(noisy, problem, seed=1), roll(noisy, problem, seed=2))


@both
def test_an_ensemble_is_a_function_of_its_seed(problem):
    made = forecasters(problem)
    for name in ("diffusion", "consistency_1", "consistency_2"):
        assert torch.equal(roll(made[name], problem), roll(made[name], problem)), name


@both
def test_members_of_a_deterministic_model_agree_and_of_a_probabilistic_one_do_not(problem):
    made = forecasters(problem)
    same = roll(made["operator"], problem, members=MEMBERS)
    assert same.shape == (2, MEMBERS, STEPS[problem], len(centres(problem)), SHAPES[problem].channels)
    torch.testing.assert_close(same, same[:, :1].expand_as(same), rtol=1e-5, atol=1e-5)
    for name in ("diffusion", "consistency_1", "consistency_2"):
        spread = roll(made[name], problem).std(dim=1)
        assert (spread.amax(dim=(2, 3)) > 1e-3).all(), name


def test_each_member_is_rolled_out_from_its_own_states():
    """Noise by place (trajectory, member) and step: every rollout can be repeated alone."""
    steps, bound, initial = STEPS["wave"], codec().of("wave"), first_frames("wave", 2)
    noise = torch.randn(steps, 2 * MEMBERS, 8, DIM, generator=torch.Generator().manual_seed(0))
    place = iter(range(steps))

    def step(z: Tensor, scalars: Tensor, _: torch.Generator) -> Tensor:
        return operator()(z, scalars, "wave") + noise[next(place)]

    together = decoded_rollout(
        step, bound, initial, None, SCALARS["wave"], steps, centres("wave"),
        members=MEMBERS, generator=torch.Generator(),
    )  # fmt: skip
    for trajectory in range(2):
        for member in range(MEMBERS):
            state = bound.encode(initial[trajectory : trajectory + 1])
            for number in range(steps):
                state = operator()(state, SCALARS["wave"][None], "wave")
                state = state + noise[number, trajectory * MEMBERS + member]
                frame = bound.decode(state, centres("wave"))[0]
                torch.testing.assert_close(together[trajectory, member, number], frame, rtol=1e-4, atol=1e-4)


@both
def test_calls_are_counted_as_they_happen(problem):
    calls = 0

    def count(*_) -> None:
        nonlocal calls
        calls += 1

    counted_operator, diffusion, consistency = operator(), residual("diffusion"), residual("consistency")
    for model in (counted_operator, diffusion, consistency):
        model.register_forward_hook(count)
    levels = {"sigma_min": 0.02, "sigma_max": 10.0, "members": 2}
    made = [
        operator_forecaster(counted_operator, problem),
        *diffusion_forecasters(counted_operator, diffusion, problem, steps=3, rho=7.0, **levels),
        *consistency_forecasters(counted_operator, consistency, problem, second_sigma=0.8, **levels),
    ]
    tokens = SHAPES[problem].layout.token_count
    for forecaster in made:
        calls = 0
        forecaster.step(torch.zeros(1, tokens, DIM), SCALARS[problem][None], torch.Generator())
        assert calls == forecaster.calls_per_step, forecaster.name
