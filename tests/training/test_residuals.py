"""Residuals are the operator's own errors after its own steps, shared out over ranks."""

import numpy as np
import pytest
import torch
from cached import SHAPES, build_small_cache, datasets
from command_line import TINY
from tiny import LINE, PROBLEM, SQUARE, TOKENS, alone, build, describe, fresh, random_batch
from torch import Tensor

from ups.config import load_configuration
from ups.data.cache import open_caches
from ups.data.splits import fitted_and_held_out
from ups.models.build import MODEL_FILE, save_model
from ups.models.operator import LatentOperator
from ups.objectives import Loss
from ups.runtime.randomness import numpy_generator
from ups.runtime.request import Request
from ups.stages.diffusion import loss_validation, residual_data
from ups.training.residuals import Residuals, ResidualSource

FRAMES, COUNT = 7, 5
SCALARS = random_batch(1).scalars[0]
MIX = {PROBLEM: LINE, "square": SQUARE}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def operator() -> LatentOperator:
    model = build("operator", shapes=MIX, scale=0.05)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def latents(count: int = COUNT, frames: int = FRAMES, tokens: int = TOKENS) -> Tensor:
    return torch.randn(count, frames, tokens, 4, generator=torch.Generator().manual_seed(1))


def residuals(**changes) -> Residuals:
    return Residuals(
        PROBLEM, operator(), latents(), SCALARS, **({"rollout_steps": 2, "rollout_fraction": 0.5} | changes)
    )


def of_a_map(count: int = 6) -> Residuals:
    states = latents(count, 2, SQUARE.layout.token_count)
    return Residuals("square", operator(), states, torch.ones(1), rollout_steps=2, rollout_fraction=0.5)


def source(problems: dict[str, Residuals] | None = None, **changes) -> ResidualSource:
    settings = {"sampling": "balanced", "seed": 0, "purpose": "diffusion", "batch_size": 12}
    return ResidualSource.of(problems or {PROBLEM: residuals()}, **(settings | changes))


def level(made: Residuals, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """States, targets and predictions of one level."""
    part = slice(int(made.offsets[number]), int(made.offsets[number] + made.sizes[number]))
    return made.states[part], made.targets[part], made.predictions[part]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_states_of_a_level_are_so_many_steps_of_the_operator_from_the_truth(number):
    state, target, prediction = level(residuals(), number)
    truth, model = latents(), operator()
    place = 0
    for trajectory in range(COUNT):
        for start in range(FRAMES - 1 - number):
            expected = truth[trajectory, start][None]
            for _ in range(number):
                expected = model(expected, SCALARS[None], PROBLEM)
            torch.testing.assert_close(state[place], expected[0], **CLOSE)
            torch.testing.assert_close(prediction[place], model(expected, SCALARS[None], PROBLEM)[0], **CLOSE)
            assert torch.equal(target[place], truth[trajectory, start + number + 1])
            place += 1
    assert place == len(state) == len(target) == len(prediction)


def test_a_map_is_applied_once_and_only_to_what_is_given():
    made = of_a_map()
    assert made.sizes.tolist() == [6]
    assert made.level_weights == [1.0]
    truth, model = latents(6, 2, SQUARE.layout.token_count), operator()
    assert torch.equal(made.states, truth[:, 0])
    assert torch.equal(made.targets, truth[:, 1])
    predicted = model(truth[:, 0], torch.ones(6, 1), "square")
    torch.testing.assert_close(made.predictions, predicted, **CLOSE)
    batch = source({"square": made}).batch(0)
    assert batch.problem == "square"
    assert batch.scalars.shape == (12, 1)


def test_a_batch_is_the_examples_of_its_slots():
    """One gather over all levels against a loop that looks every slot up by itself."""
    made = residuals()
    sizes, weights = made.sizes.tolist(), made.level_weights
    for step in range(5):
        batch = source({PROBLEM: made}).batch(step)
        generator = numpy_generator(0, "residuals", PROBLEM, step)
        levels = generator.choice(3, p=weights, size=12)
        places = generator.random(12)
        assert batch.latents is not None
        assert batch.predictions is not None
        for slot, (number, place) in enumerate(zip(levels.tolist(), places.tolist(), strict=True)):
            state, target, prediction = level(made, number)
            index = int(place * sizes[number])
            assert torch.equal(batch.latents[slot, 0], state[index])
            assert torch.equal(batch.latents[slot, 1], target[index])
            assert torch.equal(batch.predictions[slot], prediction[index])
            assert torch.equal(batch.scalars[slot], SCALARS)


def test_the_deviation_is_that_of_the_residuals_that_are_drawn():
    made = residuals()
    batch = source({PROBLEM: made}, batch_size=4000).batch(0)
    assert batch.latents is not None
    drawn = (batch.latents[:, 1] - batch.predictions).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(made.deviation(), drawn, rtol=0.05, atol=0)
    assert (made.deviation() > 0.5).all()
    one_level = residuals(rollout_steps=0)
    exact = (one_level.targets - one_level.predictions).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(one_level.deviation(), exact)


def test_a_channel_without_error_is_not_divided_by_zero():
    still = latents()[:, :1].expand(-1, FRAMES, -1, -1)
    persistence = fresh("operator")
    assert isinstance(persistence, LatentOperator)
    made = Residuals(PROBLEM, persistence, still, SCALARS, rollout_steps=1, rollout_fraction=0.5)
    assert made.deviation().tolist() == [1.0] * 4


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_shares_of_all_ranks_are_the_batch_of_one(world):
    whole = source().batch(5)
    assert whole.latents is not None
    assert whole.predictions is not None
    for rank in range(world):
        share = source(rank=rank, world=world).batch(5)
        assert torch.equal(share.latents, whole.latents[rank::world])
        assert torch.equal(share.predictions, whole.predictions[rank::world])
        assert share.scalars.shape == (12 // world, 2)


def test_a_batch_is_a_function_of_seed_and_step():
    def draw(seed: int, step: int) -> Tensor:
        predictions = source(seed=seed).batch(step).predictions
        assert predictions is not None
        return predictions

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2))
    assert not torch.equal(draw(0, 1), draw(1, 1))


@pytest.mark.parametrize(("fraction", "steps", "expected"), [(0.5, 2, [0.5, 0.25, 0.25]), (0.3, 0, [1.0])])
def test_levels_are_drawn_as_often_as_they_should(fraction, steps, expected):
    made = residuals(rollout_fraction=fraction, rollout_steps=steps)
    assert made.level_weights == pytest.approx(expected)
    batch = source({PROBLEM: made}, batch_size=4000).batch(0)
    assert batch.latents is not None
    states = batch.latents[:, 0].flatten(1)
    for number, share in enumerate(expected):
        candidates = level(made, number)[0].flatten(1)
        members = (states[:, None] == candidates).all(dim=2).any(dim=1)
        assert members.float().mean().item() == pytest.approx(share, abs=0.03)


def test_a_spread_has_first_and_last_examples_of_every_level():
    made = residuals()
    batch = made.take(made.spread(4))
    assert batch.predictions is not None
    assert len(batch.predictions) == len(batch.scalars) == 3 * 4
    for number in range(3):
        assert torch.equal(batch.predictions[4 * number], level(made, number)[2][0])
        assert torch.equal(batch.predictions[4 * number + 3], level(made, number)[2][-1])
    assert np.array_equal(made.spread(10_000), np.arange(made.sizes.sum()))


# --- several problems -----------------------------------------------------------------------------


def test_problems_take_turns_each_with_its_own_residuals():
    made = source({PROBLEM: residuals(), "square": of_a_map()})
    seen = set()
    for step in range(20):
        batch = made.batch(step)
        seen.add(batch.problem)
        assert batch.latents is not None
        expected = (12, 2, TOKENS, 4) if batch.problem == PROBLEM else (12, 2, 16, 4)
        assert batch.latents.shape == expected
        alone_drawn = made.problems[batch.problem].drawn(
            numpy_generator(0, "residuals", batch.problem, step), 12, 0, 1
        )
        assert torch.equal(batch.latents, alone_drawn.latents)
    assert seen == {PROBLEM, "square"}


def test_a_mix_follows_difficulty_and_goes_on_after_a_resume():
    problems = {PROBLEM: residuals(), "square": of_a_map()}
    whole, killed = (source(problems, sampling="difficulty_weighted") for _ in range(2))
    for made in (whole, killed):
        for step in range(7):
            made.batch(step)
        made.reweigh(7, {PROBLEM: 0.1, "square": 0.9})
    assert whole.state()["weights"] == (pytest.approx(0.3), pytest.approx(0.7))
    resumed = source(problems, sampling="difficulty_weighted")
    resumed.restore(killed.state())
    for step in range(7, 30):
        expected, batch = whole.batch(step), resumed.batch(step)
        assert batch.problem == expected.problem
        assert torch.equal(batch.predictions, expected.predictions)


def test_proportional_counts_true_states():
    """Every step of every trajectory is one, whatever rollouts start from it."""
    weights = source({PROBLEM: residuals(), "square": of_a_map()}, sampling="proportional").state()["weights"]
    assert weights == (pytest.approx(30 / 36), pytest.approx(6 / 36))


# --- out of a cache -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def request_of_a_mix(tmp_path_factory) -> Request:
    """What the diffusion stage is asked for, with a small cache and an operator as its inputs."""
    root = tmp_path_factory.mktemp("residuals")
    shapes = {name: SHAPES[name] for name in ("map", "waves")}
    artifact, _ = build_small_cache(root / "cache", datasets("map", "waves"))
    model = build("operator", shapes=shapes, scale=0.05)
    save_model(root / "operator" / MODEL_FILE, model, describe("operator", shapes))
    generated = {"source": "generated", "resolution": 32, "solver_resolution": 32}
    data = {
        "source": "mix",
        "sampling": "difficulty_weighted",
        "problems": {
            "waves": generated
            | {"nu": 0.5, "frames": 5, "frame_interval": 0.1}
            | {"trajectories": {"train": 8, "validation": 2, "test": 1}},
            "map": generated
            | {"equation": "darcy2d", "beta": 0.5}
            | {"trajectories": {"train": 4, "validation": 2, "test": 1}},
        },
    }
    configuration = load_configuration(
        TINY, {"data": data, "execution.device": "cpu", "training.operator.residual_fraction": 0.25}
    )
    inputs = {"cache_encode": artifact, "operator": root / "operator"}
    return Request(root, root, "diffusion", "", "", configuration, inputs, {})


def test_only_train_rows_that_the_operator_did_not_fit_are_learnt_from(request_of_a_mix):
    data = residual_data(request_of_a_mix, alone(), batch_size=8)
    caches = open_caches(request_of_a_mix.inputs["cache_encode"])
    assert list(data.source.problems) == list(data.validation) == ["map", "waves"]
    assert data.source.mixture.sampling == "difficulty_weighted"
    for name, cache in caches.items():
        _, held_out = fitted_and_held_out(cache.rows("train"), 0.25)
        assert 0 < len(held_out) < len(cache.rows("train"))
        for made, rows in (
            (data.source.problems[name], held_out),
            (data.validation[name], cache.rows("validation")),
        ):
            truth = torch.from_numpy(cache.latents(rows)).float()
            levels = 1 if name == "map" else 3
            assert len(made.sizes) == levels
            for number in range(levels):
                state, target, _ = level(made, number)
                assert torch.equal(target, truth[:, number + 1 :].flatten(0, 1))
                if number == 0:
                    assert torch.equal(state, truth[:, :-1].flatten(0, 1))


@pytest.mark.parametrize("world", [2, 5])
def test_validation_is_shared_out_also_where_a_rank_has_nothing_to_do(request_of_a_mix, world):
    """The map has two examples: with five ranks, three of them have none."""

    class Mean:
        """A loss that is the mean of a function of each example."""

        def __call__(self, model, batch, generator):
            assert len(batch.scalars) > 0, "an objective is not asked for the loss of nothing"
            return Loss(batch.latents.square().mean(dim=(1, 2, 3)).mean())

    data = residual_data(request_of_a_mix, alone(), batch_size=8)
    model = torch.nn.Identity()
    whole = loss_validation(Mean(), data.validation, request_of_a_mix, alone())
    assert whole.metric == "validation_loss"
    expected = whole.errors(model)
    shares = []
    for rank in range(world):
        ranks = alone()
        ranks.rank, ranks.world = rank, world
        shares.append(loss_validation(Mean(), data.validation, request_of_a_mix, ranks).errors(model))
    for name, errors in expected.items():
        joined = torch.cat([share[name] for share in shares])
        assert len(joined) == len(errors)
        assert joined.mean().item() == pytest.approx(errors.mean().item(), rel=1e-5)
    assert [len(share["map"]) for share in shares] == ([1, 1] if world == 2 else [1, 1, 0, 0, 0])
