"""Residuals are those of the operator's own forecasts, shared out over ranks."""

import pytest
import torch
from cached import SHAPES, build_small_cache, datasets
from command_line import TINY
from tiny import LINE, PROBLEM, SQUARE, TOKENS, build, describe, random_batch, single_rank
from torch import Tensor

from ups.config import load_configuration
from ups.data.cache import open_caches
from ups.data.splits import fitted_and_held_out
from ups.models.build import MODEL_FILE, save_model
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.runtime.randomness import numpy_generator
from ups.runtime.request import Request
from ups.stages.diffusion import load_forecasts, loss_validation, residual_data, save_forecasts
from ups.training.objectives import Loss
from ups.training.residuals import Residuals, ResidualSource

FRAMES, COUNT = 7, 5
SCALARS = random_batch(COUNT).scalars
MIX = {PROBLEM: LINE, "square": SQUARE}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def operator() -> LatentOperator:
    model = build("operator", shapes=MIX, scale=0.05)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def codec() -> Codec:
    model = build("codec", shapes=MIX)
    assert isinstance(model, Codec)
    return model


def latents(count: int = COUNT, frames: int = FRAMES, tokens: int = TOKENS) -> Tensor:
    return torch.randn(count, frames, tokens, 4, generator=torch.Generator().manual_seed(1))


def residuals() -> Residuals:
    return Residuals.of(operator(), codec().of(PROBLEM), latents(), SCALARS)


def of_a_map(count: int = 6) -> Residuals:
    states = latents(count, 2, SQUARE.token_grid.token_count)
    return Residuals.of(operator(), codec().of("square"), states, torch.ones(count, 1))


def source(problems: dict[str, Residuals] | None = None, **changes) -> ResidualSource:
    settings = {"sampling": "balanced", "seed": 0, "purpose": "diffusion", "batch_size": 12}
    return ResidualSource.of(problems or {PROBLEM: residuals()}, **(settings | changes))


@pytest.mark.parametrize("at_once", [2, 100])
def test_forecasts_start_from_the_truth_once_and_go_on_alone(at_once, monkeypatch):
    monkeypatch.setattr("ups.training.residuals._TRAJECTORIES_AT_ONCE", at_once)
    made, truth, model = residuals(), latents(), operator()
    assert made.forecasts.mean.shape == made.truth.shape == (COUNT, FRAMES - 1, TOKENS, 4)
    assert torch.equal(made.truth, truth[:, 1:])
    for trajectory in range(COUNT):
        state = truth[trajectory, 0][None]
        for lead in range(FRAMES - 1):
            state = model(state, SCALARS[trajectory][None], PROBLEM)
            torch.testing.assert_close(made.forecasts.mean[trajectory, lead], state[0], **CLOSE)


def test_a_map_is_applied_once_and_only_to_what_is_given():
    made = of_a_map()
    truth, model = latents(6, 2, SQUARE.token_grid.token_count), operator()
    assert torch.equal(made.truth, truth[:, 1:])
    predicted = model(truth[:, 0], torch.ones(6, 1), "square")
    torch.testing.assert_close(made.forecasts.mean[:, 0], predicted, **CLOSE)
    batch = source({"square": made}).batch(0)
    assert batch.problem == "square"
    assert batch.scalars.shape == (12, 1)


def test_a_batch_is_the_trajectories_of_its_slots():
    made = residuals()
    seen = set()
    for step in range(5):
        batch = source({PROBLEM: made}).batch(step)
        places = numpy_generator(0, "residuals", PROBLEM, step).random(12)
        assert batch.latents is not None
        assert batch.forecasts is not None
        for slot, place in enumerate(places.tolist()):
            index = int(place * COUNT)
            seen.add(index)
            assert torch.equal(batch.latents[slot], made.truth[index])
            assert torch.equal(batch.forecasts[slot], made.forecasts.mean[index])
            assert torch.equal(batch.scalars[slot], SCALARS[index])
    assert seen == set(range(COUNT))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_shares_of_all_ranks_are_the_batch_of_one(world):
    whole = source().batch(5)
    assert whole.latents is not None
    assert whole.forecasts is not None
    for rank in range(world):
        share = source(rank=rank, world=world).batch(5)
        assert torch.equal(share.latents, whole.latents[rank::world])
        assert torch.equal(share.forecasts, whole.forecasts[rank::world])
        assert share.scalars.shape == (12 // world, 2)


def test_a_batch_is_a_function_of_seed_and_step():
    def draw(seed: int, step: int) -> Tensor:
        forecasts = source(seed=seed).batch(step).forecasts
        assert forecasts is not None
        return forecasts

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2))
    assert not torch.equal(draw(0, 1), draw(1, 1))


# --- several problems -----------------------------------------------------------------------------


def test_problems_take_turns_each_with_its_own_residuals():
    made = source({PROBLEM: residuals(), "square": of_a_map()})
    seen = set()
    for step in range(20):
        batch = made.batch(step)
        seen.add(batch.problem)
        assert batch.latents is not None
        assert batch.latents.shape == ((12, 6, TOKENS, 4) if batch.problem == PROBLEM else (12, 1, 16, 4))
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
        assert torch.equal(batch.forecasts, expected.forecasts)


def test_proportional_counts_trajectories():
    weights = source({PROBLEM: residuals(), "square": of_a_map()}, sampling="proportional").state()["weights"]
    assert weights == (pytest.approx(5 / 11), pytest.approx(6 / 11))


# --- out of a cache -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the small cache was written from, without a file of them."""
    monkeypatch.setattr("ups.stages.diffusion.load_datasets", lambda *_: datasets("map", "waves"))


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
    inputs = {"download": root, "cache_encode": artifact, "operator": root / "operator"}
    return Request(root, root, "diffusion", "", configuration, inputs, {})


def test_only_train_rows_that_the_operator_did_not_fit_are_learnt_from(request_of_a_mix):
    data = residual_data(request_of_a_mix, single_rank(), batch_size=8)
    caches = open_caches(request_of_a_mix.inputs["cache_encode"])
    assert list(data.source.problems) == list(data.validation) == ["map", "waves"]
    assert data.source.mixture.sampling == "difficulty_weighted"
    for name, cache in caches.items():
        _, held_out = fitted_and_held_out(cache.rows("train"), 0.25)
        assert 0 < len(held_out) < len(cache.rows("train"))
        fitted, validated = data.source.problems[name], data.validation_residuals[name]
        truth = torch.from_numpy(cache.latents(held_out)).float()
        assert torch.equal(fitted.truth, truth[:, 1:])
        # Of the float32 source, of which the cache is a rounding.
        rounded = torch.from_numpy(cache.latents(cache.rows("validation"))).float()
        assert not torch.equal(validated.truth, rounded[:, 1:])
        torch.testing.assert_close(validated.truth, rounded[:, 1:], rtol=2e-3, atol=2e-3)
        for made, initial in ((fitted, truth[:, 0]), (validated, rounded[:, 0])):
            first = data.operator(initial, made.scalars, name)
            torch.testing.assert_close(made.forecasts.mean[:, 0], first, rtol=1e-2, atol=1e-2)


def test_residuals_are_conditioned_as_forecasts_are(request_of_a_mix):
    """Where the amplitude is taken out, the dimensionless numbers are the frame's and not the problem's."""
    data = residual_data(request_of_a_mix, single_rank(), batch_size=8)
    for name, problem in data.validation.items():
        rows = problem.rows("validation")
        frame = problem.codec.frame(
            torch.from_numpy(problem.rows_fields(rows)[:, 0]), problem.source.parameters
        )
        expected = frame.conditioning(torch.tensor(problem.scalars))
        torch.testing.assert_close(data.validation_residuals[name].scalars, expected)


@pytest.mark.parametrize("world", [2, 5])
def test_validation_is_shared_out_also_where_a_rank_has_nothing_to_do(request_of_a_mix, world):
    """The map has two examples: with five ranks, three of them have none."""

    class Mean:
        """A loss that is the mean of a function of each example."""

        def __call__(self, model, batch, generator):
            assert len(batch.scalars) > 0, "an objective is not asked for the loss of nothing"
            return Loss(batch.latents.square().mean(dim=(1, 2, 3)).mean())

    data = residual_data(request_of_a_mix, single_rank(), batch_size=8)
    model = torch.nn.Identity()
    whole = loss_validation(Mean(), data.validation_residuals, request_of_a_mix, single_rank())
    assert whole.metric == "validation_loss"
    expected = whole.errors(model)
    shares = []
    for rank in range(world):
        ranks = single_rank()
        ranks.rank, ranks.world = rank, world
        shares.append(
            loss_validation(Mean(), data.validation_residuals, request_of_a_mix, ranks).errors(model)
        )
    for name, errors in expected.items():
        joined = torch.cat([share[name] for share in shares])
        assert len(joined) == len(errors)
        assert joined.mean().item() == pytest.approx(errors.mean().item(), rel=1e-5)
    assert [len(share["map"]) for share in shares] == ([1, 1] if world == 2 else [1, 1, 0, 0, 0])


def test_forecasts_are_made_once_and_read_again(request_of_a_mix, tmp_path):
    made = residual_data(request_of_a_mix, single_rank(), batch_size=8)
    save_forecasts(tmp_path / "forecasts.safetensors", made)
    again = load_forecasts(tmp_path / "forecasts.safetensors", torch.device("cpu"))
    read = residual_data(request_of_a_mix, single_rank(), batch_size=8, made=again)
    for name in ("map", "waves"):
        for first, second in (
            (made.source.problems[name], read.source.problems[name]),
            (made.validation_residuals[name], read.validation_residuals[name]),
        ):
            assert (
                second.forecasts
                is again[f"{'train' if first is made.source.problems[name] else 'validation'}/{name}"]
            )
            for part in ("truth", "scalars"):
                assert torch.equal(getattr(first, part), getattr(second, part))
            assert torch.equal(first.forecasts.mean, second.forecasts.mean)
            assert torch.equal(first.forecasts.variance, second.forecasts.variance)
