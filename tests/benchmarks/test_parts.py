"""Every moment of a step belongs to one of its parts, the backward pass to where its forward operators are."""

import pytest
import torch
from tiny import optimizer_of, state_of
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from trainings import batch_for, training

from ups.benchmarks.parts import AVERAGES, LOSS, OPTIMISER, REST, marked_networks, microseconds_of, parts_of
from ups.training.objectives.objective import Loss, Objective
from ups.training.step import PROFILED, Update, training_step


def profiled(model: nn.Module, objective: Objective) -> tuple[list[FunctionEvent], list[FunctionEvent]]:
    """The events of two steps, and the second of them."""
    optimizer = optimizer_of(model, kind="adamw", learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    state = state_of(model, objective, optimizer)
    update = Update(state, torch.Generator(), gradient_clip=1.0)
    with marked_networks(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(2):
            training_step(state, batch_for("operator", seed=number), update, learning_rate=1e-3)
    events = list(profiler.events() or [])
    return events, [event for event in events if event.name == PROFILED][1:]


def test_a_training_has_its_networks_loss_optimiser_and_averages():
    events, steps = profiled(*training("operator"))
    found = parts_of(events, steps, microseconds_of("cpu"))
    assert {"LatentOperator", LOSS, OPTIMISER, AVERAGES, REST} <= {record["what"] for record in found}
    assert sum(record["of_step"] for record in found) == pytest.approx(1)
    assert sum(record["milliseconds_per_step"] for record in found) <= steps[0].cpu_time_total / 1e3


class Network(nn.Module):
    """Says that it is one of `ups.models`."""

    __module__ = "ups.models.network"

    def __init__(self, *, squares: bool) -> None:
        super().__init__()
        self.weight, self.squares = nn.Parameter(torch.randn(8, 8)), squares

    def forward(self, x):
        x = (x @ self.weight).exp()
        return x.square() if self.squares else x


class MeanSquare(Objective):
    """Whose square the network may take or leave."""

    def __call__(self, model, batch, generator):
        found = model(torch.ones(4, 8)).sin()
        return Loss((found if model.squares else found.square()).mean(), {})


@pytest.mark.parametrize("squares", [True, False])
def test_a_backward_operator_counts_where_its_forward_operator_did(squares):
    """By events that are given a second each; all others take none."""
    events, steps = profiled(Network(squares=squares), MeanSquare())
    for name, part in (("Mm", "Network"), ("Pow", "Network" if squares else LOSS), ("Sin", LOSS)):
        whole = f"autograd::engine::evaluate_function: {name}Backward0"
        chosen = next(e for e in events if e.name == whole and e.time_range.start > steps[0].time_range.start)
        given = {id(event): 1e6 * (event is chosen) for event in events}
        found = parts_of(events, steps, lambda event, given=given: given[id(event)])
        assert [record["what"] for record in found if record["milliseconds_per_step"]] == [part]
