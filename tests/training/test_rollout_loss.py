"""The operator's loss: what it counts, in which norm, from which states, and what symmetries leave of it."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import LATENT_DIM, LINE, NETWORK, PROBLEM, SQUARE, build, evolutions, fresh, random_batch, waves
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_by_frame
from ups.models.codec import Codec
from ups.models.evolution import Evolution, rollout
from ups.models.operators import LatentOperator
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.training.objectives.operator import RolloutLoss

LINEAR = {"encoder": NETWORK | {"depth": 0}, "decoder": NETWORK | {"depth": 0}}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_codec(shape: ProblemShape = LINE, name: str = PROBLEM, latent_dim: int = LATENT_DIM) -> Codec:
    """Lossless, with statistics that a frame and an amplitude allow."""
    codec = fresh("codec", shapes={name: shape}, latent_dim=latent_dim, **LINEAR)
    assert isinstance(codec, Codec)
    for part, value in codec.of(name).statistics.named_buffers():
        value.uniform_(0.5, 1.5, generator=generator(7))
        if shape.scales_itself:
            value.fill_(0.0 if part.endswith("mean") else value[0].item())
    return codec


class Truth(nn.Module):
    """Looks the next state up, and is wrong by an error."""

    def __init__(self, states: Tensor, error: float | Tensor = 0.0, start: int = 0) -> None:
        super().__init__()
        self.states, self.error, self.step = states, error, start
        self.given: list[Tensor] = []
        self.strides: list[int] = []

    def forward(self, state: Tensor, scalars: Tensor, problem: str, stride: int = 1) -> Tensor:
        self.given.append(state)
        self.strides.append(stride)
        self.step += 1
        return self.states[:, self.step] + self.error


def test_it_is_the_relative_error_of_physical_fields_computed_by_hand():
    codec = linear_codec()
    statistics, fields = codec.of(PROBLEM).statistics, 3 + waves(5, 4)
    error = 0.1 * torch.randn(5, 8, 4, generator=generator(1))
    batch = replace(random_batch(5, 4), fields=fields)
    assert batch.latents is not None
    objective = RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=3)
    assert objective(Truth(batch.latents), batch, generator()).total.item() == 0
    loss = objective(Truth(batch.latents, error), batch, generator())
    # A token's four numbers are the values of its patch; the norm holds the mean of 3.
    wrong = (error * statistics.latent_deviation * statistics.field_deviation).flatten(1).norm(dim=1)
    expected = wrong[:, None] / fields[:, 1:, :, 0].norm(dim=2)
    assert loss.total.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert loss.terms["L_forward"].item() == pytest.approx(expected[:, 0].mean().item(), rel=1e-5)
    assert loss.terms["L_rollout"].item() == pytest.approx(expected[:, 1:].mean().item(), rel=1e-5)


def test_the_norm_may_also_be_that_of_the_field_in_its_frame():
    """Of waves on a mean of 3, whose frame has no mean: the same error counts for so much more."""
    shape = replace(LINE, exact=("galilean",))
    codec = linear_codec(shape)
    fields = 3 + waves(5, 2)
    states = codec.of(PROBLEM).encode_trajectories(fields, None, time_step=0.05, parameters={})
    batch = replace(random_batch(5, 2), fields=fields, latents=states)
    losses = {}
    for norm in ("physical", "frame"):
        objective = RolloutLoss(codec, evolutions({PROBLEM: shape}), rollout_steps=1, norm=norm)
        losses[norm] = objective(Truth(states, 0.01), batch, generator()).total.item()
    wave, whole = waves(5, 2)[:, 1].flatten(1), fields[:, 1].flatten(1)
    wave = wave - wave.mean(dim=1, keepdim=True)
    ratio = (1 / wave.norm(dim=1)).mean() / (1 / whole.norm(dim=1)).mean()
    assert losses["frame"] / losses["physical"] == pytest.approx(ratio.item(), rel=0.02)


def test_a_batch_of_a_longer_time_step_is_learnt_as_one():
    """The operator is told of it, at pushed steps too, and the frames of a moving window are that far apart."""
    shape = replace(LINE, exact=("galilean",))
    codec, fields = linear_codec(shape), 0.5 + waves(3, 13)
    strided = replace(random_batch(3, 13), fields=fields[:, ::4], latents=None, stride=4)
    objective = RolloutLoss(codec, evolutions({PROBLEM: shape}), rollout_steps=2, pushforward_steps=1)
    states = codec.of(PROBLEM).encode_trajectories(fields, None, time_step=0.05, parameters={})[:, ::4]
    truth = Truth(states)
    assert objective(truth, strided, generator(3)).total.item() < 1e-5
    assert set(truth.strides) == {4}
    with pytest.raises(AssertionError):
        assert objective(Truth(states), replace(strided, stride=1), generator(3)).total.item() < 1e-5


@pytest.mark.parametrize("scored", [(0,), (1,), (0, 1)])
def test_only_scored_fields_count_each_in_its_own_size(scored):
    """A hundredfold given field costs nothing; of a scored one the relative error is what it is."""
    shape = replace(SQUARE, scored=scored)
    codec = linear_codec(shape, "square", 32)
    fields = torch.randn(4, 2, 16, 16, 2, generator=generator()) * torch.tensor([100.0, 0.5])
    latents, error = (
        torch.randn(4, 2, 16, 32, generator=generator(1)),
        torch.randn(4, 16, 32, generator=generator(2)),
    )
    objective = RolloutLoss(codec, evolutions({"square": shape}), rollout_steps=4)
    batch = Batch("square", torch.zeros(4, 1), fields=fields, latents=latents)
    loss = objective(Truth(latents, error), batch, generator())
    statistics = codec.of("square").statistics
    wrong = (error * statistics.latent_deviation).unflatten(2, (16, 2)) * statistics.field_deviation
    of_field = wrong.flatten(1, 2).norm(dim=1) / fields[:, 1].flatten(1, 2).norm(dim=1)
    assert loss.total.item() == pytest.approx(of_field[:, list(scored)].mean().item(), rel=1e-4)
    assert set(loss.terms) == {"L_forward"}, "a map is applied once"


def test_targets_are_decoded_so_that_nothing_is_asked_for_that_the_codec_cannot_say():
    """Fields that the codec loses three quarters of, and an operator that knows their latents."""
    lossy = fresh("codec", latent_dim=1, **LINEAR)
    assert isinstance(lossy, Codec)
    batch = replace(random_batch(4, 3), latents=None)
    assert batch.fields is not None
    states = lossy.of(PROBLEM).encode_trajectories(batch.fields, None, time_step=0.05, parameters={})
    objective = RolloutLoss(lossy, evolutions({PROBLEM: LINE}), rollout_steps=2)
    assert objective(Truth(states), batch, generator()).total.item() < 1e-6


def test_cached_latents_are_used_where_there_are_some():
    codec, batch = linear_codec(), random_batch(4, 3)
    assert batch.latents is not None
    objective = RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=2)
    truth = Truth(batch.latents)
    assert objective(truth, batch, generator()).total.item() == 0
    assert torch.equal(truth.given[0], batch.latents[:, 0])


def test_a_frame_of_zeros_leaves_the_loss_finite():
    error, target = torch.ones(2, 1, 4, 1), torch.zeros(2, 1, 4, 1)
    target[0] = 2
    assert relative_l2_by_frame(error, target)[0].item() == 0.5
    assert relative_l2_by_frame(0 * error, target).sum().item() == 0
    error.requires_grad_()
    relative_l2_by_frame(error[:1], target[:1]).sum().backward()
    assert error.grad is not None
    assert error.grad.isfinite().all()


# --- how far, and from where ----------------------------------------------------------------------


def counted(step: int, **settings: Any) -> int:
    batch = replace(random_batch(2, 6), step=step)
    assert batch.latents is not None
    truth = Truth(batch.latents)
    RolloutLoss(linear_codec(), evolutions({PROBLEM: LINE}), **settings)(truth, batch, generator())
    return truth.step


def test_a_rollout_grows_by_one_step_at_a_time():
    grown = [counted(step, rollout_steps=5, rollout_start=20) for step in range(25)]
    assert grown == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5
    assert {counted(step, rollout_steps=3) for step in (0, 7)} == {3}, "at once without a curriculum"
    assert counted(0, rollout_steps=9) == 5, "no further than the window"


def test_pushed_steps_are_drawn_anew_and_the_error_is_counted_after_them():
    batch, seen = random_batch(3, 6), set()
    assert batch.latents is not None
    objective = RolloutLoss(linear_codec(), evolutions({PROBLEM: LINE}), rollout_steps=2, pushforward_steps=2)
    for step in range(30):
        truth = Truth(batch.latents)
        loss = objective(truth, replace(batch, step=step), generator())
        assert loss.total.item() == 0, "each step against its own frame"
        seen.add(truth.step)
    assert seen == {2, 3, 4}
    other = RolloutLoss(
        linear_codec(), evolutions({PROBLEM: LINE}), rollout_steps=2, pushforward_steps=2, seed=1
    )
    batches = [replace(batch, step=step) for step in range(30)]
    assert [objective.variant(each) for each in batches] != [other.variant(each) for each in batches]


def test_no_gradient_flows_through_pushed_steps():
    """As if they had been taken before, by a model that is not trained."""
    codec, batch = linear_codec(), random_batch(4, 5)
    assert batch.latents is not None
    assert batch.fields is not None
    model = build("operator", scale=0.1)
    settings = {"rollout_steps": 2, "pushforward_steps": 2}
    objective = RolloutLoss(codec, evolutions({PROBLEM: LINE}), **settings)
    batch = next(each for step in range(20) if objective.variant(each := replace(batch, step=step)) == (2, 2))
    loss = objective(model, batch, generator())
    loss.total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.no_grad():
        pushed = rollout(lambda z: model(z, batch.scalars, PROBLEM), batch.latents[:, 0], 2)[:, -1]
    later = replace(
        batch, latents=torch.cat([pushed[:, None], batch.latents[:, 3:]], dim=1), fields=batch.fields[:, 2:]
    )
    plain = RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=2)(model, later, generator())
    plain.total.backward()
    assert loss.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)
    through = RolloutLoss(codec, evolutions({PROBLEM: LINE}), rollout_steps=4)(model, batch, generator())
    model.zero_grad()
    through.total.backward()
    assert any(
        (found[n] - p.grad).abs().max() > 1e-3 for n, p in model.named_parameters() if p.grad is not None
    )


@pytest.mark.parametrize("deviation", [0.0, 0.05, 0.4])
def test_noise_has_its_deviation_in_the_size_of_each_state(deviation):
    latents = (
        torch.randn(200, 2, 8, 4, generator=generator()) * torch.linspace(0.1, 3, 200)[:, None, None, None]
    )
    batch = replace(random_batch(200, 2), latents=latents)
    truth = Truth(latents)
    objective = RolloutLoss(
        linear_codec(), evolutions({PROBLEM: LINE}), rollout_steps=1, state_noise=deviation
    )
    assert objective(truth, batch, generator(3)).total.item() == 0, "the target has none"
    size = latents[:, 0].square().mean(dim=(1, 2)).sqrt()
    noise = (truth.given[0] - latents[:, 0]) / size[:, None, None]
    assert noise.std().item() == pytest.approx(deviation, rel=0.03, abs=1e-6)
    assert abs(noise.mean().item()) < 0.02
    again = Truth(latents)
    objective(again, batch, generator(3))
    assert torch.equal(again.given[0], truth.given[0])


# --- symmetries -----------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"kind": "hybrid", "width": 16, "dilations": [1, 2], "heads": 2, "ratio": 2}
ODD = ProblemShape("burgers1d", (27,), (9,), (0,), "periodic")


def equivariant(shape: ProblemShape, latent_dim: int) -> tuple[Codec, LatentOperator]:
    codec = linear_codec(shape, "case", latent_dim)
    model = build("operator", shapes={"case": shape}, network=SMALL, latent_dim=latent_dim, conserve=True)
    assert isinstance(model, LatentOperator)
    model.set_from_codec(codec.of("case"))
    return codec, model.requires_grad_(False)


@pytest.mark.parametrize(
    "used", [("shift",), ("reflection",), ("scaling",), ("shift", "reflection", "scaling")], ids=str
)
def test_drawn_symmetries_leave_the_loss_of_an_equivariant_model_as_it_is(used):
    """Where a symmetry changes field and error alike; the scale of time changes with the scale of the field."""
    codec, model = equivariant(replace(ODD, exact=("shift", "reflection", "galilean", "scaling")), 3)
    batch = Batch("case", torch.tensor([[-3.0, -4.0]]).expand(6, -1), fields=1 + 0.4 * waves(6, 4, grid=27))

    def losses(augment: tuple[Any, ...]) -> Tensor:
        problem = {"case": Evolution(0.05, {"nu": 0.02}, augment)}
        loss = RolloutLoss(codec, problem, rollout_steps=3)(model, batch, generator(5))
        return torch.stack([loss.total, *loss.terms.values()])

    torch.testing.assert_close(losses(used), losses(()), rtol=2e-4, atol=0)
    assert losses(())[0] > 0.05


@pytest.mark.parametrize(
    "used", [("galilean",), ("galilean", "scaling"), ("galilean", "shift", "reflection", "scaling")]
)
def test_a_boost_changes_the_norm_and_not_the_error(used):
    """Of one frame: the loss times the norm of what it is relative to."""
    shape = replace(ODD, exact=("shift", "reflection", "galilean", "scaling"))
    codec, model = equivariant(shape, 3)
    fields = 1 + 0.4 * waves(1, 2, grid=27)
    batch = Batch("case", torch.tensor([[-3.0, -4.0]]), fields=fields)
    plain = RolloutLoss(codec, {"case": Evolution(0.05, {"nu": 0.02})}, rollout_steps=1)(
        model, batch, generator(5)
    )
    drawn = RolloutLoss(codec, {"case": Evolution(0.05, {"nu": 0.02}, used)}, rollout_steps=1)
    turned = ReferenceFrame.random(shape, fields[:, 0], used, generator(5))
    moved = turned.enter(fields, torch.tensor([0.0, 0.05]))
    error = drawn(model, batch, generator(5)).total * moved[:, 1].norm() * turned.scale[0, 0]
    assert error.item() == pytest.approx((plain.total * fields[:, 1].norm()).item(), rel=1e-3)


def test_all_eight_positions_of_a_square_cost_the_same():
    shape = ProblemShape("darcy2d", (12, 12), (4, 4), (1,), "dirichlet", exact=("square",))
    codec, model = equivariant(shape, 18)
    fields = torch.randn(8, 2, 12, 12, 2, generator=generator(2))
    fields[:, 0, ..., 1] = 0
    known = torch.tensor([[True, False], [True, True]]).expand(8, -1, -1)
    batch = Batch("case", torch.full((8, 1), -0.5), fields=fields, known=known)
    losses = [
        RolloutLoss(codec, {"case": Evolution(1.0, {"beta": 0.6}, augment)}, rollout_steps=1)(
            model, batch, generator(4)
        ).total
        for augment in ((), ("square",))
    ]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-4)


def test_drawn_symmetries_change_the_loss_of_another_model():
    codec, model = equivariant(ODD, 3)
    batch = Batch("case", torch.tensor([[-3.0, -4.0]]).expand(6, -1), fields=1 + 0.4 * waves(6, 4, grid=27))
    losses = {
        RolloutLoss(codec, {"case": Evolution(0.05, {"nu": 0.02}, augment)}, rollout_steps=3)(
            model, batch, generator(5)
        ).total.item()
        for augment in ((), ("shift",), ("reflection",), ("galilean",), ("scaling",))
    }
    ordered = sorted(losses)
    assert len(ordered) == 5
    assert min(b / a for a, b in itertools.pairwise(ordered)) > 1.0001
