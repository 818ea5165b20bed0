"""A training step in plain torch that never changes: what other steps are divided by, so that the machine's pace cancels.

It does what an operator's step does: circular convolutions with residuals and GELU, a squared error, backward, AdamW. Nothing of `ups`
is in it. Whoever edits it begins a new history of the nightly benchmark (`ups.pipeline.nightly.suite`).
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH, _LAYERS, _BATCH, _POINTS = 48, 8, 64, 64
_WARM_UP = 5


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(_WIDTH, _WIDTH, 3, padding=1, padding_mode="circular") for _ in range(_LAYERS)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return x


def plain_step_seconds(steps: int, device: torch.device) -> float:
    """Median seconds of a step, of `steps` after a few that are not counted."""
    network = _Network().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    x = torch.randn(_BATCH, _WIDTH, _POINTS, device=device)
    seconds = []
    for step in range(_WARM_UP + steps):
        started = time.perf_counter()
        optimizer.zero_grad()
        (network(x) - x.roll(1, -1)).square().mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if step >= _WARM_UP:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
