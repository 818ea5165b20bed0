"""What the last line of a training says."""

import pytest
import torch
from tiny import optimizer_of, state_of
from torch import nn

from ups.data.batch import Batch
from ups.training.objectives import Loss, Objective
from ups.training.step import Update
from ups.training.throughput import Throughput, throughput_line


class OneProduct(Objective):
    """Of as many samples as the batch has."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        return Loss(model(torch.randn(len(batch), 64, generator=generator)).square().sum())


def test_flops_are_those_of_a_batch_and_its_gradients_are_thrown_away():
    model = nn.Linear(64, 32, bias=False)
    optimizer = optimizer_of(model, kind="adamw", learning_rate=1.0, betas=(0.9, 0.9), weight_decay=0.0)
    update = Update(state_of(model, OneProduct(), optimizer), torch.Generator(), gradient_clip=1.0)
    throughput, before = Throughput(), model.weight.clone()
    throughput.count_flops(update, Batch(problem="none", scalars=torch.zeros(8, 1)))
    # The product, and that of the weights' gradient; nobody asks for that of the input.
    assert throughput.flops == 2 * (2 * 8 * 64 * 32)
    assert model.weight.grad is None
    assert torch.equal(model.weight, before)


def test_the_record_is_of_all_windows():
    throughput = Throughput()
    throughput.flops = 5_000_000_000
    throughput.add(10, 4.0, 0.1)
    throughput.add(30, 6.0, 0.4)
    record = throughput.record(torch.device("cpu"), "fp32", clipped=10)
    assert record["whole_seconds_per_step"] == 0.25
    assert record["whole_data_wait_fraction"] == pytest.approx(0.05)
    assert record["gigaflop_per_second"] == pytest.approx(20.0)
    assert record["of_best_product"] > 0
    assert record["peak_memory_gigabytes"] > 0.05
    line = throughput_line(record)
    assert line.startswith("0.25 s/step, data wait 5.0%, 20 GFLOP/s (")
    assert line.endswith(" GB, 25% of steps clipped")
    record |= {"captured_graphs": 40, "discarded_graphs": 8}
    assert throughput_line(record).endswith(" clipped, 40 CUDA graphs captured, 8 of them discarded")
