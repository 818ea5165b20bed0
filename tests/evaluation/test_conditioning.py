"""Candidates of tiny networks: what is chosen among them, at what cost, and never at the validation split's."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY
from small_models import SCALARS, codec, operator, residual
from torch import Tensor

from ups.config import load_configuration
from ups.errors import ConfigurationError
from ups.evaluation.conditioning import Conditioner, Fit, conditioned_rows, fit
from ups.evaluation.evaluation_set import EvaluationSet, ForecastInputs
from ups.evaluation.scores import Setting
from ups.evaluation.surrogate import Surrogate
from ups.physics.burgers import solve_burgers
from ups.problems import PROBLEMS

COUNT, LEADS, POINTS = 6, 3, 32
SAMPLERS = {
    "diffusion": {"steps": 2, "sigma_min": 0.05, "centre": 3.0},
    "consistency": {"sigma_min": 0.05, "second_sigma": 3.0},
}


def data(split: str = "test") -> EvaluationSet:
    generator = torch.Generator().manual_seed(len(split))
    x = torch.arange(512) / 512
    phase = torch.rand(COUNT, 1, generator=generator)
    initial = torch.sin(2 * torch.pi * (x + phase))
    truth = solve_burgers(initial, nu=0.05, frame_interval=0.05, frames=LEADS + 1)[
        :, :, :: 512 // POINTS, None
    ]
    setting = Setting(
        problem="wave", dataset="waves", version="ours", split=split, fields=PROBLEMS["burgers1d"].fields,
        boundary="periodic", is_map=False, seed=0, resolution=(POINTS,), frames=LEADS + 1, device="cpu", threads=1,
        time_step=0.05, parameters={"nu": 0.05},
    )  # fmt: skip
    inputs = ForecastInputs(
        "wave", None, SCALARS["wave"], LEADS, 0.05, {"nu": 0.05}, ((np.arange(POINTS) + 0.5) / POINTS,)
    )
    return EvaluationSet(setting, truth, inputs, None)


def conditioner(of: EvaluationSet, **ttc: Any) -> Conditioner:
    settings = {"evaluation.ttc": {"fitted_on": 4, "members": 6, "refinement": 8} | ttc}
    surrogate = Surrogate(
        codec(), {}, operator(), residual("diffusion"), residual("consistency"), {}, SAMPLERS, members=6
    )
    made = Conditioner(surrogate, of.inputs, load_configuration(TINY, settings).evaluation)
    made.batch = 4
    return made


def planted(of: Conditioner, truth: Tensor, errors: Tensor) -> Conditioner:
    """Candidates that are the truth plus errors [M, x], for every trajectory and lead; the first is the operator's."""

    def predict(model: str, members: int, first: Tensor) -> Tensor:
        row = [int((truth[:, 0] - one).abs().flatten(1).amax(dim=1).argmin()) for one in first]
        chosen = errors[:1] if model == "operator" else errors[1 : 1 + members]
        return truth[row, 1:].flatten(2, -2)[:, None] + chosen[:, None, :, None]

    of._predict = predict  # pyright: ignore[reportAttributeAccessIssue]
    return of


def waves(sizes: list[float]) -> Tensor:
    x = torch.arange(POINTS) / POINTS
    return torch.stack([size * torch.sin(2 * torch.pi * (x + 0.1 * k)) for k, size in enumerate(sizes)])


def rows(of: Conditioner, on: EvaluationSet, fitted: Fit) -> tuple[dict[str, Any], dict[str, Any]]:
    results, shown = conditioned_rows(of, fitted, on)
    return {result.name: result for result in results}, shown


ERRORS = waves([0.1, 0.2, 0.02, 0.3, 0.15, 0.25, 0.12])


def test_physics_chooses_better_than_chance_and_no_better_than_the_truth():
    validation, test = data("validation"), data()
    fitted = fit(planted(conditioner(validation), validation.truth, ERRORS), validation.truth)
    found, shown = rows(planted(conditioner(test), test.truth, ERRORS), test, fitted)
    errors = {name: scores.get("trajectory").mean().item() for name, scores in found.items()}
    base = torch.tensor(shown["errors"])[:, 0].mean().item()
    assert errors["ttc_oracle"] <= errors["ttc"] < base < errors["ttc_random"]
    assert base - errors["ttc"] > 0.5 * (base - errors["ttc_oracle"])
    assert torch.tensor(shown["errors"]).argmin(dim=1).tolist() == [2] * COUNT
    assert torch.tensor(shown["scores"]).argmin(dim=1).tolist() == [2] * COUNT
    assert found["ttc"].seconds >= found["ttc_oracle"].seconds > 0


@pytest.mark.parametrize("split_says_otherwise", [False, True])
def test_it_is_no_worse_than_the_operator_where_it_is_fitted(split_says_otherwise):
    """Candidates that obey the equation and are wrong all the same: those of another initial state."""
    validation = data("validation")
    other = validation.truth.roll(1, dims=0)
    of = conditioner(validation)
    wrong = other if split_says_otherwise else validation.truth

    def predict(model: str, members: int, first: Tensor) -> Tensor:
        row = [int((validation.truth[:, 0] - one).abs().flatten(1).amax(dim=1).argmin()) for one in first]
        if model == "operator":
            return 1.01 * validation.truth[row, None, 1:].flatten(3, -2)
        return wrong[row, None, 1:].flatten(3, -2).expand(-1, members, -1, -1, -1)

    of._predict = predict  # pyright: ignore[reportAttributeAccessIssue]
    fitted = fit(of, validation.truth)
    found, _ = rows(of, validation, fitted)
    error = found["ttc"].get("trajectory").mean().item()
    assert error <= 0.01 * (1 + 1e-4)
    assert (error < 1e-4) != split_says_otherwise
    assert bool(fitted.gate.any()) != split_says_otherwise


def calls_of(of: Conditioner) -> list[int]:
    """How many states each call of a generative model has had."""
    seen: list[int] = []
    for network in (of._surrogate.diffusion, of._surrogate.consistency):
        network.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


@pytest.mark.parametrize(
    ("settings", "members", "calls"),
    [
        ({}, 6, 18),
        ({"max_calls": 8}, 2, 6),
        ({"models": ["consistency"], "max_calls": 5}, 5, 5),
        ({"models": ["consistency", "diffusion"], "max_calls": 12}, 8, 12),
        ({"max_seconds": 1e6}, 6, 18),
    ],
)
def test_the_budget_of_calls_holds_to_the_call(settings, members, calls):
    test = data()
    of = conditioner(test, **settings)
    seen = calls_of(of)
    made = of.candidates(test.truth[:4, 0])
    assert made.scored.fields.shape[1] == 1 + members
    assert sum(seen) == 4 * calls == 4 * made.calls


def test_rounds_of_other_sizes_repeat_no_noise():
    test = data()
    of = conditioner(test, stop_at=1e-9)
    assert of.rounds() == [("diffusion", 4), ("diffusion", 2)]
    members = of.candidates(test.truth[:4, 0]).scored.fields[0, 1:].flatten(1)
    assert len(members) == 6
    # Of nearly the same noise, four and two would be nearer by far than any others.
    distances = torch.cdist(members, members)
    assert (distances + distances.max() * torch.eye(6)).min() > 0.5 * distances.median()


def test_physics_sees_no_more_of_the_first_frame_than_the_models_do(monkeypatch):
    test = data()
    of = planted(conditioner(test), test.truth, ERRORS)
    whole = of.candidates(test.truth[:4, 0])
    monkeypatch.setattr(type(of.codec), "seen", lambda _, fields: 2 * fields)
    seen = of.candidates(test.truth[:4, 0])
    torch.testing.assert_close(seen.scale, 2 * whole.scale)
    assert not torch.allclose(seen.scored.costs[:, 0, 0], whole.scored.costs[:, 0, 0] / 4)


def test_a_budget_of_seconds_ends_the_drawing():
    test = data()
    of = conditioner(test, members=40, max_seconds=1e-9)
    assert of.candidates(test.truth[:, 0]).scored.fields.shape[1] == 1
    with pytest.raises(ConfigurationError, match=r"max_seconds: 1e-09 s are below one candidate"):
        fit(of, test.truth)
    of = conditioner(test, members=40, max_seconds=1e6)
    of.candidates(test.truth[:, 0])
    of._dearest = 1e7  # a round is known to take longer than what is left
    assert of.candidates(test.truth[:, 0]).calls == 0


def test_who_is_satisfied_takes_no_more_candidates_whoever_is_beside():
    test = data()
    errors = waves([0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0])
    errors[0] = 0

    def made(rows: slice) -> Any:
        of = planted(conditioner(test, stop_at=1e-3), test.truth, errors)
        plain = of._predict

        def predict(model: str, members: int, first: Tensor) -> Tensor:
            found = plain(model, members, first)
            if model == "operator":  # of the first trajectory alone it is right
                found[(first - test.truth[0, 0]).abs().flatten(1).amax(dim=1) > 0] += 0.2
            return found

        of._predict = predict  # pyright: ignore[reportAttributeAccessIssue]
        return of.candidates(test.truth[rows, 0])

    alone, together = made(slice(1)), made(slice(2))
    assert alone.calls == 0
    assert together.calls > 0
    assert together.scored.totals[0, 1:].isinf().all()
    assert together.scored.totals[1].isfinite().all()


def test_observations_help_where_members_err_alike():
    validation, test = data("validation"), data()
    observations = {"sensors": [[0.2], [0.6]], "times": [0.05, 0.15], "noise": 1e-4}
    settings = {"observations": observations, "scores": {"conservation": 1.0}, "refinement": 1}
    errors = waves([0.1, 0.2, -0.02, 0.3, 0.15, -0.25, 0.12])

    def made(of: EvaluationSet) -> Conditioner:
        return planted(conditioner(of, **settings), of.truth, errors)

    fitted = fit(made(validation), validation.truth)
    found, _ = rows(made(test), test, fitted)
    errors_of = {name: scores.get("trajectory").mean().item() for name, scores in found.items()}
    assert errors_of["ttc_observed"] < 0.3 * errors_of["ttc"]


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_conditioned_has_the_totals_that_are_kept(keep):
    validation = data("validation")
    # Each has another total, and all a wrong one.
    errors = ERRORS + torch.linspace(0.1, 0.2, len(ERRORS))[:, None]
    of = planted(conditioner(validation, keep_totals=keep), validation.truth, errors)
    fitted = fit(of, validation.truth)
    made = of.candidates(validation.truth[:, 0])
    chosen = of.conditioned(made, fitted)
    total = validation.truth[:, :1].mean(dim=2)  # [n, 1, C]
    drifts = (
        chosen.mean(dim=2) - total,
        (made.scored.fields * made.scale[:, None]).mean(dim=3) - total[:, None],
    )
    for drift in drifts:
        assert bool((drift.abs() < 1e-5).all()) == keep


def test_candidates_of_one_batch_are_kept_at_a_time_and_drawn_twice_alike():
    validation = data("validation")
    observations = {"sensors": [[0.2]], "times": [0.1], "noise": 1e-3}
    of = conditioner(validation, observations=observations, members=3, refinement=1)
    plain, alive, drawn = of.candidates, weakref.WeakSet[Any](), list[Tensor]()

    def candidates(first: Tensor, **options: Any) -> Any:
        made = plain(first, **options)
        alive.add(made)
        drawn.append(made.scored.fields.clone())
        assert len(alive) <= 2  # these, and those before them until they are replaced
        return made

    of.candidates = candidates  # pyright: ignore[reportAttributeAccessIssue]
    of.batch = 2
    fit(of, validation.truth)
    assert len(drawn) == 2 * COUNT // 2
    for once, again in zip(drawn[: COUNT // 2], drawn[COUNT // 2 :], strict=True):
        torch.testing.assert_close(once, again, rtol=0, atol=0)


def test_batches_change_no_choice():
    test = data()
    fitted = Fit(None, torch.ones(LEADS))
    errors = []
    for batch in (2, 6):
        of = planted(conditioner(test), test.truth, ERRORS)
        of.batch = batch
        results, _ = conditioned_rows(of, fitted, test)
        errors.append({result.name: result.get("trajectory") for result in results})
    for name in ("ttc", "ttc_oracle"):
        torch.testing.assert_close(errors[0][name], errors[1][name])
