"""`ups bench train` times the operator's steps, with each optimisation and without."""

import json

import pytest
from command_line import TINY, ups

from ups.benchmarks.parts import AVERAGES, LOSS, OPTIMISER
from ups.benchmarks.stages import short_training
from ups.benchmarks.train import variants
from ups.config import load_configuration
from ups.pipeline.comparison import differences


def test_every_part_of_the_stack_is_left_out_once_and_stands_alone_once():
    chosen = variants(load_configuration(TINY, {"execution.device": "cuda"}))
    plain, stack = chosen["plain"], chosen["whole stack"]
    assert all(plain[key] != stack[key] for key in stack)
    for key in stack:
        name = key.removeprefix("execution.")
        assert chosen[f"stack without {name}"] == stack | {key: plain[key]}
        assert chosen[f"{name} alone"] == plain | {key: stack[key]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {},
            [
                "as configured", "threads: 2", "activation_checkpointing: 1", "accumulation: 2",
                "compile: true", "compile: blocks", "optimizer: muon", "optimizer: soap",
            ],
        ),
        (
            {
                "execution.threads": 2, "execution.compile": True, "execution.activation_checkpointing": 2,
                "training.operator.batch_size": 9, "training.operator.optimizer": {"kind": "soap"},
            },
            [
                "as configured", "threads: 1", "activation_checkpointing: 0", "compile: false", "compile: blocks",
                "optimizer: adamw", "optimizer: muon",
            ],
        ),
    ],
)  # fmt: skip
def test_on_a_cpu_every_variant_is_the_configuration_with_one_other_setting(overrides, expected):
    configuration = load_configuration(TINY, {"execution.device": "cpu", **overrides})
    chosen = variants(configuration)
    assert list(chosen) == expected
    trained = [
        short_training(configuration, "operator", 8, changes).model_dump(mode="json")
        for changes in chosen.values()
    ]
    for name, values in zip(chosen, trained, strict=True):
        (changed,) = differences(trained[0], values) or ["as configured"]
        assert name.startswith(changed.rpartition(".")[2])


def test_too_few_steps_are_refused(tmp_path):
    done = ups("bench", "train", TINY, "--root", tmp_path, "--steps", "7")
    assert done.returncode == 2
    assert "--steps: 7 steps are too few to tell how long one takes" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.long
def test_a_row_for_every_variant_and_for_every_part_of_a_step(tmp_path):
    done = ups("bench", "train", TINY, "--root", tmp_path, "--steps", "9", "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    rows = {record["what"]: record for record in records if record["measure"] == "train"}
    assert len(rows) == 8
    assert rows["as configured"]["speed"] == 1
    same = {
        "as configured",
        "activation_checkpointing: 1",
        "accumulation: 2",
        "compile: true",
        "compile: blocks",
    }
    errors = [rows[name]["validation_relative_l2"] for name in same]
    assert errors == pytest.approx([errors[0]] * len(errors), rel=1e-3)
    parts = {record["what"]: record["of_step"] for record in records if record["measure"] == "part"}
    assert sum(parts.values()) == pytest.approx(1)
    assert {"LatentOperator", LOSS, OPTIMISER, AVERAGES} <= parts.keys()
    assert any((tmp_path / "artifacts" / ".compiled").rglob("*.so")), "compiled elsewhere"
