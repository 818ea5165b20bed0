"""Splits are disjoint, reproducible, and keep PDEBench's test rows apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ups.data.splits import fitted_and_held_out, generated_rows, split_rows
from ups.errors import DataError
from ups.problems.generated import SPLITS

PINNED = {"train": [10, 13, 16, 18], "validation": [12, 14, 17], "test": [0, 1]}


@st.composite
def requests(draw):
    """(n_rows, counts, test_first) that a file can serve, edges included."""
    test_first = draw(st.none() | st.integers(0, 60))
    reserved = 0 if test_first is None else test_first
    n_rows = reserved + draw(st.integers(0, 60))
    test = draw(st.integers(0, reserved if test_first is not None else n_rows))
    left = n_rows - (reserved if test_first is not None else test)
    validation = draw(st.integers(0, left))
    train = draw(st.integers(0, left - validation))
    return n_rows, {"train": train, "validation": validation, "test": test}, test_first


@given(request=requests(), seed=st.integers(0, 2**64 - 1))
def test_rows_are_disjoint_and_as_many_as_asked(request, seed):
    n_rows, counts, test_first = request
    split = split_rows(n_rows, counts, seed=seed, test_first=test_first)
    assert {name: len(rows) for name, rows in split.items()} == counts
    together = np.concatenate([split[name] for name in SPLITS])
    assert len(np.unique(together)) == len(together)
    assert all(((rows >= 0) & (rows < n_rows)).all() for rows in split.values())
    assert all((np.diff(rows) > 0).all() for rows in split.values())
    if test_first is not None:
        assert (split["test"] < test_first).all()
        assert (split["train"] >= test_first).all()
        assert (split["validation"] >= test_first).all()
    again = split_rows(n_rows, dict(reversed(counts.items())), seed=seed, test_first=test_first)
    assert all(np.array_equal(split[name], again[name]) for name in SPLITS)


@pytest.mark.parametrize("test_first", [None, 1000])
def test_growing_the_train_split_changes_nothing_else(test_first):
    few = split_rows(10_000, {"train": 100, "validation": 50, "test": 1000}, seed=7, test_first=test_first)
    many = split_rows(10_000, {"train": 8000, "validation": 50, "test": 1000}, seed=7, test_first=test_first)
    assert np.array_equal(few["test"], many["test"])
    assert np.array_equal(few["validation"], many["validation"])
    assert np.isin(few["train"], many["train"]).all()


def test_pdebench_test_rows_do_not_depend_on_the_seed_but_the_others_do():
    counts = {"train": 500, "validation": 100, "test": 200}
    one, two = (split_rows(10_000, counts, seed=seed, test_first=1000) for seed in (1, 2))
    assert np.array_equal(one["test"], np.arange(200))
    assert np.array_equal(two["test"], np.arange(200))
    for name in ("train", "validation"):
        common = len(np.intersect1d(one[name], two[name]))
        assert common < 0.2 * counts[name]
    drawn, redrawn = (split_rows(10_000, counts, seed=seed, test_first=None)["test"] for seed in (1, 2))
    assert len(np.intersect1d(drawn, redrawn)) < 40


def test_draws_cover_the_file_evenly():
    split = split_rows(10_000, {"train": 4500, "validation": 100, "test": 1000}, seed=3, test_first=1000)
    quarters = np.histogram(split["train"], bins=4, range=(1000, 10_000))[0]
    assert np.abs(quarters - 1125).max() < 100  # four standard deviations of the hypergeometric count


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_more_of_one_split_moves_no_other(split):
    counts = {"train": 400, "validation": 50, "test": 100}
    few = split_rows(10_000, counts, seed=7, test_first=1000)
    more = split_rows(10_000, counts | {split: 3 * counts[split]}, seed=7, test_first=1000)
    for name, rows in few.items():
        if name == split:
            assert set(rows) < set(more[name])
        else:
            np.testing.assert_array_equal(more[name], rows)


def test_generated_rows_of_splits_never_meet():
    rows = [
        set(generated_rows(split, count).tolist()) for split, count in zip(SPLITS, (9, 400, 30), strict=True)
    ]
    assert [len(each) for each in rows] == [9, 400, 30]
    assert len(set.union(*rows)) == 439
    np.testing.assert_array_equal(generated_rows("test", 30)[:9], generated_rows("test", 9))


def test_values_are_pinned():
    """Results on disk name a split by its seed: a change here makes another experiment."""
    split = split_rows(20, {"train": 4, "validation": 3, "test": 2}, seed=2022, test_first=10)
    assert {name: rows.tolist() for name, rows in split.items()} == PINNED


@pytest.mark.parametrize(
    ("n_rows", "counts", "test_first", "message"),
    [
        (4, (2, 1, 2), None, r"the file has 4 rows, but 2 train \+ 1 validation \+ 2 test = 5"),
        (4, (1, 1, 1), 1000, r"rows from 1000 on\) has 0 rows, but 1 train \+ 1 validation = 2"),
        (4, (0, 0, 5), 1000, r"rows before 1000\) has 4 rows, but 5 test = 5"),
        (2000, (0, 0, 1001), 1000, r"rows before 1000\) has 1000 rows"),
        (2000, (900, 101, 10), 1000, r"has 1000 rows, but 900 train \+ 101 validation = 1001"),
    ],
)
def test_a_file_with_too_few_rows_says_what_is_there(n_rows, counts, test_first, message):
    with pytest.raises(DataError, match=message):
        split_rows(n_rows, dict(zip(SPLITS, counts, strict=True)), seed=0, test_first=test_first)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"train": 1, "test": 1}},
        {"counts": {"train": 1, "valid": 1, "test": 1}},
        {"counts": {"train": -1, "validation": 1, "test": 1}},
        {"n_rows": -1},
        {"seed": -1},
        {"test_first": -1},
    ],
)
def test_arguments_out_of_range_are_refused(change):
    arguments = {
        "n_rows": 10,
        "counts": {"train": 1, "validation": 1, "test": 1},
        "seed": 0,
        "test_first": None,
    }
    arguments |= change
    with pytest.raises(ValueError, match="must"):
        split_rows(arguments.pop("n_rows"), arguments.pop("counts"), **arguments)


@given(
    numbers=st.lists(st.integers(0, 3000), min_size=1, max_size=60, unique=True).map(sorted),
    seed=st.integers(0, 100),
    test_first=st.integers(1, 3000),
)
def test_rows_of_another_file_are_reserved_by_their_numbers_there(numbers, seed, test_first):
    """A file of some rows of PDEBench's has test rows and others wherever they happen to lie."""
    original = np.array(numbers)
    reserved = int((original < test_first).sum())
    left = len(original) - reserved
    counts = {"test": reserved, "validation": left // 3, "train": left - left // 3}
    split = split_rows(len(original), counts, seed=seed, test_first=test_first, original_rows=original)
    assert (original[split["test"]] < test_first).all()
    assert len(split["test"]) == reserved
    for name in ("train", "validation"):
        assert (original[split[name]] >= test_first).all()
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(original)))
    with pytest.raises(DataError, match=f"rows before {test_first}"):
        split_rows(
            len(original),
            counts | {"test": reserved + 1},
            seed=seed,
            test_first=test_first,
            original_rows=original,
        )


def test_a_whole_file_numbers_its_rows_itself():
    counts = {"train": 40, "validation": 10, "test": 20}
    plain = split_rows(100, counts, seed=1, test_first=30)
    numbered = split_rows(100, counts, seed=1, test_first=30, original_rows=np.arange(100))
    assert all(np.array_equal(plain[name], numbered[name]) for name in SPLITS)


@given(length=st.integers(2, 500), fraction=st.floats(0.01, 0.99))
def test_what_the_operator_fits_and_what_its_residual_is_learnt_from_are_disjoint(length, fraction):
    train = np.arange(length) * 3
    fitted, held_out = fitted_and_held_out(train, fraction)
    assert np.array_equal(np.concatenate([fitted, held_out]), train)
    assert len(held_out) == round(length * fraction)
