"""TensorFloat-32 is there, or refused."""

import re

import pytest
import torch

from ups.errors import PreflightError
from ups.runtime.precision import require_tensor_float_32


def test_a_gpu_without_tensor_float_32_is_refused_by_its_name_with_both_keys(monkeypatch):
    device, capability = torch.device("cuda"), (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    require_tensor_float_32(device)
    capability = (7, 5)
    message = "execution.precision: tf32 is not to be had on the GPU of execution.device: cuda, Tesla T4"
    with pytest.raises(PreflightError, match=re.escape(message)) as refused:
        require_tensor_float_32(device)
    assert "fix: write execution.precision: fp32" in str(refused.value)
