"""`ups bench train` times the operator's steps, with each optimisation and without."""

import json

import pytest
from command_line import TINY, ups

from ups.benchmarks.train import variants


def test_every_part_of_the_stack_is_left_out_once_and_stands_alone_once():
    chosen = variants("cuda")
    plain, stack = chosen["plain"], chosen["whole stack"]
    assert all(plain[key] != stack[key] for key in stack)
    for key in stack:
        assert chosen[f"stack without {key}"] == stack | {key: plain[key]}
        assert chosen[f"{key} alone"] == plain | {key: stack[key]}
    assert list(variants("cpu")) == ["plain", "compiled"]


def test_too_few_steps_are_refused(tmp_path):
    done = ups("bench", "train", TINY, "--root", tmp_path, "--steps", "7")
    assert done.returncode == 2
    assert "--steps: 7 steps are too few to tell how long one takes" in done.stderr


@pytest.mark.slow
def test_a_row_for_every_variant(tmp_path):
    done = ups("bench", "train", TINY, "--root", tmp_path, "--steps", "9", "--json")
    assert done.returncode == 0, done.stderr
    plain, compiled = json.loads(done.stdout)
    assert (plain["what"], compiled["what"]) == ("plain", "compiled")
    assert plain["speed_over_plain"] == 1
    assert compiled["milliseconds_per_step"] > 0
    errors = [row["validation_relative_l2"] for row in (plain, compiled)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
