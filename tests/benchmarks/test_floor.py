"""The least time of a step: the longest of three, each by what the device was measured to do."""

import pytest
import torch
from safetensors.torch import save_file
from tiny import FixedBatches, optimizer_of, state_of
from trainings import training

from ups.benchmarks import floor as floor_module
from ups.benchmarks.floor import Floor, bytes_moved, floor_of
from ups.config.schema import Execution
from ups.runtime.device_speed import copy_bandwidth, launch_seconds
from ups.training.checkpoint import Checkpoints

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("floor", "binding"),
    [
        (Floor(products=3.0, memory=2.0, launches=1.0), ("matrix products", 3.0)),
        (Floor(products=1.0, memory=2.0, launches=None), ("memory", 2.0)),
        (Floor(products=1.0, memory=2.0, launches=4.0), ("launches", 4.0)),
    ],
)
def test_the_longest_binds(floor, binding):
    assert floor.binding == binding


def test_each_is_an_amount_over_what_the_device_does(monkeypatch):
    monkeypatch.setattr(floor_module, "product_flops", lambda *_: 1e9)
    monkeypatch.setattr(floor_module, "copy_bandwidth", lambda *_: 1e6)
    monkeypatch.setattr(floor_module, "launch_seconds", lambda *_, captured: 1e-3 if captured else 1e-2)

    def found(**changes: object) -> Floor:
        return floor_of(2e9, 3_000_000, 100.0, Execution.model_validate({"device": "cpu"} | changes))

    assert found() == Floor(products=2.0, memory=3.0, launches=1.0)
    assert found(cuda_graphs=True) == Floor(products=2.0, memory=3.0, launches=0.1)
    assert found(compile="blocks") == Floor(products=2.0, memory=3.0, launches=None)


def test_a_step_moves_what_its_checkpoint_holds_and_the_gradients(tmp_path):
    """Of AdamW: weight, gradient, average and two moments, each once in and once out, and two counts per tensor."""
    model, objective = training("operator")
    optimizer = optimizer_of(model, kind="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    state = state_of(model, objective, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state.source = FixedBatches(8)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
    (path,) = tmp_path.iterdir()
    parameters = list(model.parameters())
    assert bytes_moved(path) == 2 * 4 * (5 * sum(p.numel() for p in parameters) + len(parameters))


def test_what_is_no_part_of_a_step_is_not_counted(tmp_path):
    save_file(
        {"ema/a": torch.zeros(10), "model/a": torch.zeros(10), "best/a": torch.zeros(99)}, tmp_path / "file"
    )
    assert bytes_moved(tmp_path / "file") == 2 * 3 * 40


@pytest.mark.slow
def test_a_copy_has_a_bandwidth_and_a_launch_a_price():
    """Between what no machine reaches and what every machine does."""
    assert 1e8 < copy_bandwidth(CPU) < 1e13
    assert 1e-8 < launch_seconds(CPU) < 1e-3
