"""What `auto` stands for is decided by the machine, before digests are taken."""

import pytest
from command_line import TINY

from ups.config import load_configuration
from ups.errors import ConfigurationError
from ups.pipeline import device as device_module
from ups.pipeline.device import resolve


@pytest.mark.parametrize(
    ("gpu", "changes", "device", "graphs"),
    [
        (True, {}, "cuda", True),
        (True, {"execution.cuda_graphs": False}, "cuda", False),
        (True, {"execution.processes": 2}, "cuda", False),
        (True, {"execution.device": "cpu"}, "cpu", False),
        (False, {}, "cpu", False),
    ],
)
def test_auto_is_the_best_that_is_possible_here(gpu, changes, device, graphs, monkeypatch):
    monkeypatch.setattr(device_module, "_cuda_available", lambda: gpu)
    execution = resolve(load_configuration(TINY, changes)).execution
    assert (execution.device, execution.cuda_graphs) == (device, graphs)


@pytest.mark.parametrize(("key", "value"), [("cuda_graphs", True), ("precision", "tf32")])
def test_what_was_asked_for_is_had_or_refused(key, value, monkeypatch):
    monkeypatch.setattr(device_module, "_cuda_available", lambda: False)
    with pytest.raises(ConfigurationError, match=f"(?i){value} needs a GPU"):
        resolve(load_configuration(TINY, {f"execution.{key}": value}))
