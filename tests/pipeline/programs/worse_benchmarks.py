"""`ups.benchmarks` with something made worse by WORSE: "generator" (solved many times over), or "operator" (a wrong forecast)."""

import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from ups.benchmarks import data
from ups.benchmarks.__main__ import measure
from ups.models.operators import convolution
from ups.tools.tool_main import tool_main

_TIMES = 40
_solve, _network = data.solve_burgers, convolution.network


def _slow(*arguments: Any, **options: Any) -> Tensor:
    for _ in range(_TIMES - 1):
        _solve(*arguments, **options)
    return _solve(*arguments, **options)


def _wrong(*arguments: Any, **options: Any) -> nn.Module:
    network = _network(*arguments, **options)
    network.register_forward_hook(
        lambda _module, _inputs, output: output if torch.is_grad_enabled() else _TIMES * output
    )
    return network


if __name__ == "__main__":
    if os.environ["WORSE"] == "generator":
        data.solve_burgers = _slow
    else:
        convolution.network = _wrong
    sys.exit(tool_main("worse_benchmarks", measure))
