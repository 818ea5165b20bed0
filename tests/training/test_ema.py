"""The average of weights forgets where training started, and never leaks into the model."""

from pathlib import Path

import pytest
from torch import nn

from ups.config import load_configuration
from ups.config.schema import TRAINING_STAGES
from ups.training.ema import ExponentialMovingAverage

DEMO = Path(__file__).parents[2] / "configs" / "burgers_demo.yaml"


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


TRAININGS = {stage: getattr(load_configuration(DEMO).training, stage) for stage in TRAINING_STAGES}


@pytest.mark.parametrize("stage", [stage for stage, settings in TRAININGS.items() if settings.steps])
def test_nothing_of_the_initial_weights_is_left_after_the_demo(stage):
    settings = TRAININGS[stage]
    model = one_weight(1.0)
    ema = ExponentialMovingAverage(dict(model.named_parameters()), settings.ema_decay)
    nn.init.zeros_(model.weight)  # what is left of 1 is the fraction that is left of the start
    for step in range(settings.steps):
        ema.prepare(step)
        ema.update()
    assert ema.weights["weight"].item() < 1e-3


def test_the_average_of_constant_weights_is_these_weights():
    model = one_weight(0.3)
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.99)
    for step in range(50):
        ema.prepare(step)
        ema.update()
    assert ema.weights["weight"].item() == pytest.approx(0.3, rel=1e-6)


def test_late_updates_use_the_decay_that_was_asked_for():
    model = one_weight(0.0)
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.9)
    nn.init.ones_(model.weight)
    ema.prepare(1000)
    ema.update()
    assert ema.weights["weight"].item() == pytest.approx(0.1, rel=1e-5)
