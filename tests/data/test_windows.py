"""Windows are consecutive frames of one trajectory of one problem, the same for every world size."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import problem_windows
from torch import Tensor

from ups.data.window_reader import InMemoryReader
from ups.data.windows import ProblemWindows, WindowSource
from ups.errors import DataError

TRAJECTORIES, FRAMES = 6, 9
CPU = torch.device("cpu")


def numbered(*shape: int, trajectories: int = TRAJECTORIES, frames: int = FRAMES) -> Tensor:
    """Every value says its trajectory and its frame: 100 n + t."""
    number = (100 * torch.arange(trajectories)[:, None] + torch.arange(frames)).float()
    return number.reshape(trajectories, frames, *[1] * len(shape)).expand(-1, -1, *shape).contiguous()


def windows(**changes) -> ProblemWindows:
    settings = {"length": 3, "fields": numbered(4, 1), "latents": numbered(2, 3).half()}
    return problem_windows(**(settings | changes))


def source(problems: dict[str, ProblemWindows] | None = None, **changes) -> WindowSource:
    settings = {"seed": 1, "purpose": "operator", "batch_size": 8, "device": CPU}
    return WindowSource(problems or {"line": windows()}, **(settings | changes))


@pytest.mark.parametrize("order", ["independent", "permutation"])
def test_a_window_is_consecutive_frames_of_one_trajectory_in_fields_and_latents_alike(order):
    seen = set()
    made = source(order=order)
    for step in range(50):
        batch = made.batch(step)
        assert batch.problem == "line"
        assert batch.known is None
        assert batch.fields is not None
        assert batch.latents is not None
        assert batch.fields.shape == (8, 3, 4, 1)
        assert batch.latents.shape == (8, 3, 2, 3)
        assert batch.latents.dtype == torch.float32
        numbers = batch.fields[:, :, 0, 0]
        assert torch.equal(numbers, numbers[:, :1] + torch.arange(3))
        assert torch.equal(batch.fields, numbers[:, :, None, None].expand_as(batch.fields))
        assert torch.equal(batch.latents, numbers[:, :, None, None].expand_as(batch.latents))
        seen |= set(numbers[:, 0].int().tolist())
    assert seen == {100 * n + t for n in range(TRAJECTORIES) for t in range(FRAMES - 2)}, (
        "first and last included"
    )


@pytest.mark.parametrize("order", ["independent", "permutation"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_take_the_slots_of_their_number(world, order):
    whole = source(order=order).batch(5).fields
    assert whole is not None
    for rank in range(world):
        share = source(order=order, rank=rank, world=world).batch(5)
        assert share.fields is not None
        assert torch.equal(share.fields, whole[rank::world])
        assert share.scalars.tolist() == [[-3.0, pytest.approx(-4.6)]] * (8 // world)


def test_a_window_of_all_frames_fits_and_a_longer_one_is_an_error_with_its_fix():
    batch = source({"line": windows(length=FRAMES)}).batch(0)
    assert batch.fields is not None
    assert batch.fields.shape[1] == FRAMES
    with pytest.raises(DataError, match=r"(?s)long: .*9 frames.*window takes 10.*fix: lower rollout_steps"):
        source({"line": windows(), "long": windows(length=FRAMES + 1)})


def test_every_batch_has_one_of_the_strides_and_uses_all_frames_that_it_may():
    seen: dict[int, set[int]] = {1: set(), 3: set(), 4: set()}
    made = source({"line": replace(windows(), strides=(1, 3, 4))})
    for step in range(200):
        batch = made.batch(step)
        assert batch.fields is not None
        assert batch.latents is not None
        numbers = batch.fields[:, :, 0, 0]
        assert torch.equal(numbers, numbers[:, :1] + batch.stride * torch.arange(3))
        assert torch.equal(batch.latents[:, :, 0, 0], numbers)
        assert torch.equal(made.batch(step).fields, batch.fields), "a function of its step"
        seen[batch.stride] |= set((numbers[:, 0] % 100).int().tolist())
    assert {stride: max(starts) for stride, starts in seen.items()} == {1: 6, 3: 2, 4: 0}
    assert all(min(starts) == 0 for starts in seen.values())
    known = np.arange(FRAMES)[:, None] % 2 == 0  # every other frame
    halved = source({"line": replace(windows(known=known), strides=(1, 2))})
    for batch in map(halved.batch, range(20)):
        assert batch.fields is not None
        assert batch.known is not None
        assert torch.equal(batch.known[..., 0], batch.fields[:, :, 0, 0] % 2 == 0)
    with pytest.raises(DataError, match=r"9 frames.*window takes 11.*\n.*lower rollout_steps or time_steps"):
        source({"line": replace(windows(), strides=(1, 5))})


def test_a_store_of_nothing_is_refused():
    with pytest.raises(ValueError, match="fields or latents"):
        InMemoryReader(device=CPU)


# --- several problems -----------------------------------------------------------------------------

KNOWN = np.array([[True, False], [True, True]])


def square(**changes) -> ProblemWindows:
    """Four samples of a map: two frames of 2 x 2 points, the second field unknown in the first frame."""
    fields = numbered(2, 2, 2, trajectories=4, frames=2) + torch.tensor([10_000.0, 20_000.0])
    fields[:, 0, ..., 1] = 0
    given = {"length": 2, "fields": fields, "scalars": [0.5], "known": KNOWN}
    return problem_windows(**(given | changes))


def mix(**changes) -> WindowSource:
    return source({"line": windows(), "square": square()}, **changes)


def test_a_batch_holds_one_problem_with_its_own_scalars_shape_and_knowledge():
    seen = Counter()
    made = mix()
    for step in range(40):
        batch = made.batch(step)
        seen[batch.problem] += 1
        assert batch.fields is not None
        if batch.problem == "line":
            assert batch.fields.shape == (8, 3, 4, 1)
            assert batch.scalars.shape == (8, 2)
            assert batch.known is None
            assert batch.latents is not None
        else:
            assert batch.fields.shape == (8, 2, 2, 2, 2)
            assert batch.scalars.tolist() == [[0.5]] * 8
            assert batch.known is not None
            assert batch.latents is None
            assert torch.equal(batch.known, torch.from_numpy(KNOWN).expand(8, -1, -1))
            assert (batch.fields[:, 1, ..., 1] > 19_000).all()
            assert not batch.fields[:, 0, ..., 1].any(), "what is not known is stored as 0"
    assert set(seen) == {"line", "square"}


def test_single_frames_have_the_knowledge_of_their_place():
    """The autoencoder's windows are one frame long: of a map some are the first, some the second."""
    made = source({"square": square(length=1)})
    patterns = Counter()
    for step in range(10):
        batch = made.batch(step)
        assert batch.fields is not None
        assert batch.known is not None
        frames = batch.fields[:, 0, 0, 0, 0].int() % 2
        for frame, known, unknown in zip(frames, batch.known[:, 0], batch.fields[:, 0, ..., 1], strict=True):
            patterns[int(frame)] += 1
            assert known.tolist() == KNOWN[int(frame)].tolist()
            assert unknown.any() == bool(frame)
    assert set(patterns) == {0, 1}


def test_fields_are_those_of_the_store_in_physical_units_and_the_batch_says_its_step():
    values = 200 * torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0)) - 50
    made = source({"scaled": problem_windows(length=4, fields=values)}, batch_size=200)
    batch = made.batch(17)
    assert batch.step == 17
    assert batch.to(CPU).step == 17
    assert batch.fields is not None
    found = {tuple(row.flatten().tolist()) for row in batch.fields}
    assert found == {tuple(row.flatten().tolist()) for row in values}


@pytest.mark.parametrize("world", [1, 2])
def test_in_a_mix_each_problem_has_complete_epochs_of_its_own(world):
    """Whoever's turn it is goes on in its permutation where it was, over changes of the weights too."""
    ranks = [
        mix(order="permutation", sampling="difficulty_weighted", rank=rank, world=world)
        for rank in range(world)
    ]
    seen: dict[str, list[int]] = {"line": [], "square": []}
    for step in range(60):
        batches = [made.batch(step) for made in ranks]
        assert len({batch.problem for batch in batches}) == 1
        fields = [batch.fields for batch in batches]
        slots = torch.stack([field.flatten(1)[:, 0] for field in fields if field is not None], dim=1)
        seen[batches[0].problem] += (slots.flatten().int() % 10_000).tolist()
        if step % 17 == 16:
            for made in ranks:
                made.reweigh(step + 1, {"line": 1.0, "square": 0.2 * step})
    starts = {
        "line": {100 * n + t for n in range(6) for t in range(7)},
        "square": {100 * n for n in range(4)},
    }
    for name, expected in starts.items():
        epochs = len(seen[name]) // len(expected)
        assert epochs > 3
        for epoch in range(epochs):
            part = seen[name][epoch * len(expected) : (epoch + 1) * len(expected)]
            assert set(part) == expected, (name, epoch)
            assert len(part) == len(set(part))


def test_proportional_counts_windows_and_not_trajectories():
    made = mix(sampling="proportional")
    assert made.state()["weights"] == (pytest.approx(42 / 46), pytest.approx(4 / 46))


@pytest.mark.parametrize("order", ["independent", "permutation"])
def test_restored_in_a_new_process_it_gives_the_same_batches(order):
    def made() -> WindowSource:
        return mix(order=order, sampling="difficulty_weighted")

    whole, killed = made(), made()
    for made_before in (whole, killed):
        for step in range(9):
            made_before.batch(step)
        made_before.reweigh(9, {"line": 0.1, "square": 3.0})
        for step in range(9, 14):
            made_before.batch(step)
    resumed = made()
    resumed.restore(killed.state())
    for step in range(14, 40):
        expected, batch = whole.batch(step), resumed.batch(step)
        assert batch.problem == expected.problem
        assert batch.fields is not None
        assert expected.fields is not None
        assert torch.equal(batch.fields, expected.fields)


def test_the_purpose_of_a_source_makes_other_batches():
    first, second = (source(purpose=purpose).batch(0).fields for purpose in ("operator", "autoencoder"))
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)
