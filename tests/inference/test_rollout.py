"""A rollout is the step repeated by hand; ensemble members go their own ways; noise is the only chance."""

import torch
from tiny import GRID, build, random_batch, waves
from torch import Tensor

from ups.diffusion.edm import denoise, heun_sample, noise_levels
from ups.inference.forecaster import (
    Forecaster,
    consistency_forecasters,
    diffusion_forecasters,
    operator_forecaster,
)
from ups.inference.rollout import decoded_rollout
from ups.models.codec import Codec
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.models.token_grid import cell_centres

STEPS, MEMBERS, SIGMA_MIN, SIGMA_MAX = 4, 3, 0.02, 10.0
SCALARS = random_batch(1).scalars[0]
INITIAL = waves(2, 1)[:, 0]
CENTRES = cell_centres([GRID])


def codec() -> Codec:
    model = build("codec", seed=4)
    assert isinstance(model, Codec)
    return model


def operator() -> LatentOperator:
    # Small weights: forecasts of a random operator must not blow up within a few steps.
    model = build("operator", seed=5, scale=0.05)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def network(kind: str) -> ResidualNetwork:
    model = build(kind, seed=6, scale=0.05)
    assert isinstance(model, ResidualNetwork)
    return model.requires_grad_(False)


def forecasters() -> dict[str, Forecaster]:
    made = [
        operator_forecaster(operator()),
        *diffusion_forecasters(
            operator(),
            network("diffusion"),
            steps=2,
            sigma_min=SIGMA_MIN,
            sigma_max=SIGMA_MAX,
            rho=7.0,
            members=MEMBERS,
        ),
        *consistency_forecasters(
            operator(),
            network("consistency"),
            sigma_min=SIGMA_MIN,
            sigma_max=SIGMA_MAX,
            second_sigma=0.8,
            members=MEMBERS,
        ),
    ]
    return {forecaster.name: forecaster for forecaster in made}


def roll(
    forecaster: Forecaster, initial: Tensor = INITIAL, *, seed: int = 0, members: int | None = None
) -> Tensor:
    return decoded_rollout(
        forecaster.step,
        codec(),
        initial,
        SCALARS,
        STEPS,
        CENTRES,
        members=members or forecaster.members,
        generator=torch.Generator().manual_seed(seed),
    )


def test_a_rollout_is_one_step_after_the_other_in_latents():
    state = codec().encode(INITIAL)
    for frame in roll(operator_forecaster(operator()))[:, 0].unbind(dim=1):
        state = operator()(state, SCALARS.expand(2, -1))
        torch.testing.assert_close(frame, codec().decode(state, CENTRES), rtol=1e-5, atol=1e-5)
    assert frame.std() > 1e-2


def test_a_diffusion_step_adds_the_sampled_residual_in_the_units_of_the_latents():
    z = codec().encode(INITIAL)
    given = SCALARS.expand(2, -1)
    stepped = forecasters()["diffusion"].step(z, given, torch.Generator().manual_seed(3))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    prediction, model = operator()(z, given), network("diffusion")
    levels = noise_levels(2, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, rho=7.0)
    residual = heun_sample(lambda x, sigma: denoise(model, x, sigma, prediction, z, given), noise, levels)
    torch.testing.assert_close(stepped, prediction + residual * model.residual_deviation)
    assert (stepped - prediction).abs().max() > 0.1


def test_the_control_without_noise_leaves_nothing_to_chance():
    control = forecasters()["diffusion_zero_noise"]
    assert control.members == 1
    assert torch.equal(roll(control, seed=1), roll(control, seed=2))
    assert not torch.equal(roll(forecasters()["diffusion"], seed=1), roll(forecasters()["diffusion"], seed=2))


def test_an_ensemble_is_a_function_of_its_seed():
    for name in ("diffusion", "consistency_1", "consistency_2"):
        assert torch.equal(roll(forecasters()[name]), roll(forecasters()[name])), name


def test_members_of_a_deterministic_model_agree_and_of_a_probabilistic_one_do_not():
    same = roll(operator_forecaster(operator()), members=MEMBERS)
    assert same.shape == (2, MEMBERS, STEPS, GRID, 1)
    torch.testing.assert_close(same, same[:, :1].expand_as(same), rtol=1e-5, atol=1e-5)
    for name in ("diffusion", "consistency_1", "consistency_2"):
        spread = roll(forecasters()[name]).std(dim=1)
        assert (spread.amax(dim=(2, 3)) > 1e-3).all(), name


def test_each_member_is_rolled_out_from_its_own_states():
    """Noise by place (trajectory, member) and step: every rollout can be repeated alone."""
    noise = torch.randn(STEPS, 2 * MEMBERS, 8, 4, generator=torch.Generator().manual_seed(0))
    place = iter(range(STEPS))

    def step(z: Tensor, scalars: Tensor, _: torch.Generator) -> Tensor:
        return operator()(z, scalars) + noise[next(place)]

    together = decoded_rollout(
        step, codec(), INITIAL, SCALARS, STEPS, CENTRES, members=MEMBERS, generator=torch.Generator()
    )
    for trajectory in range(2):
        for member in range(MEMBERS):
            state = codec().encode(INITIAL[trajectory : trajectory + 1])
            for number in range(STEPS):
                state = operator()(state, SCALARS[None]) + noise[number, trajectory * MEMBERS + member]
                frame = codec().decode(state, CENTRES)[0]
                torch.testing.assert_close(together[trajectory, member, number], frame, rtol=1e-4, atol=1e-4)


def test_calls_are_counted_as_they_happen():
    calls = 0

    def count(*_) -> None:
        nonlocal calls
        calls += 1

    counted_operator, diffusion, consistency = operator(), network("diffusion"), network("consistency")
    for model in (counted_operator, diffusion, consistency):
        model.register_forward_hook(count)
    made = [
        operator_forecaster(counted_operator),
        *diffusion_forecasters(
            counted_operator, diffusion, steps=3, sigma_min=0.02, sigma_max=10.0, rho=7.0, members=2
        ),
        *consistency_forecasters(
            counted_operator, consistency, sigma_min=0.02, sigma_max=10.0, second_sigma=0.8, members=2
        ),
    ]
    for forecaster in made:
        calls = 0
        forecaster.step(torch.zeros(1, 8, 4), SCALARS[None], torch.Generator())
        assert calls == forecaster.calls_per_step, forecaster.name
