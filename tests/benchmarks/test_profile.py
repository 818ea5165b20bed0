"""What `ups profile` says of a step."""

import json

import pytest
import torch
from command_line import CONFIGS, TINY, ups
from torch.profiler import ProfilerActivity, profile, record_function

from ups.benchmarks.profile import operators_of
from ups.training.step import PROFILED


def test_flops_are_counted_by_shape_and_only_within_steps():
    left, right = torch.randn(30, 40), torch.randn(40, 50)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
        left @ right
        for _ in range(2):
            with record_function(PROFILED):
                (left @ right).exp()
                torch.bmm(left.expand(3, -1, -1), right.expand(3, -1, -1))
    events = list(profiler.events() or [])
    steps = [event for event in events if event.name == PROFILED]
    found = {record["what"]: record for record in operators_of(events, steps, on_device=False)}
    assert found["mm"]["gigaflop_per_step"] == pytest.approx(2 * 30 * 40 * 50 / 1e9)
    assert found["bmm"]["gigaflop_per_step"] == pytest.approx(3 * 2 * 30 * 40 * 50 / 1e9)
    assert found["exp"]["gigaflop_per_step"] == 0
    assert found["mm"]["calls_per_step"] == found["exp"]["calls_per_step"] == 1
    assert found["mm"]["milliseconds_per_step"] > 0


@pytest.mark.slow
def test_a_page_and_a_trace(sealed_root, tmp_path):
    arguments = ("profile", "operator", TINY, "--root", sealed_root, "--steps", "8")
    done = ups(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    step = records[0]
    operators = [record for record in records if record["measure"] == "operator"]
    assert 100 < step["kernels"] < step["operators"]
    assert 0 < step["of_best_product"] < 1
    three = [step[f"floor_of_{name}"] for name in ("matrix_products", "memory", "launches")]
    assert 0 < step["floor_milliseconds"] == max(three) < step["milliseconds_per_step"]
    assert step["floor_is"] == "launches"  # of a network of a few thousand weights
    assert len(operators) == 10
    trace = json.loads((sealed_root / "profile-operator.json").read_text())
    assert any(event.get("name") == PROFILED for event in trace["traceEvents"])
    done = ups(*arguments, "--trace", tmp_path / "mine.json")
    assert "operator on cpu, 1 thread(s): " in done.stdout
    assert "bound by launches" in done.stdout
    assert (tmp_path / "mine.json").exists()


def test_what_trains_nothing_has_no_profile(tmp_path):
    done = ups("profile", "autoencoder", CONFIGS / "burgers_demo.yaml", "--root", tmp_path)
    assert done.returncode == 2
    assert "training.autoencoder.steps: 0, so this stage trains nothing" in done.stderr
    assert not list(tmp_path.iterdir())
