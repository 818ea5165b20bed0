"""Networks of a few thousand weights, and batches for them.

Fresh networks have zero projections, behind which mistakes would hide: here all weights are random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.data.window_reader import InMemoryReader
from ups.data.windows import ProblemWindows
from ups.models.build import Description, build_model
from ups.models.codec import ProblemCodec
from ups.models.evolution import Evolution
from ups.models.forecast import Forecast
from ups.models.reference_frame import ReferenceFrame
from ups.models.residual import ResidualNetwork
from ups.models.shape import ProblemShape
from ups.problems import Symmetry
from ups.runtime.ranks import Ranks
from ups.training.ema import ExponentialMovingAverage
from ups.training.objectives import Objective
from ups.training.objectives.autoencoder import Normalisation
from ups.training.optimizers import build_optimizer
from ups.training.parallel import parallelise
from ups.training.placement import Placement
from ups.training.step import TrainingState

GRID, TOKENS, LATENT_DIM, SCALARS, LEADS = 32, 8, 4, 2, 3
NETWORK = {"width": 16, "depth": 1, "heads": 2, "ratio": 2}
RESIDUAL_NETWORK = {"width": 16, "blocks": 1, "dilations": [1], "leads_per_position": 2}

PROBLEM = "burgers1d"
LINE = ProblemShape(equation="burgers1d", grid=(GRID,), tokens=(TOKENS,), scored=(0,), boundary="periodic")
"""A periodic problem of one axis and one field."""
SQUARE = ProblemShape(equation="darcy2d", grid=(16, 16), tokens=(4, 4), scored=(1,), boundary="dirichlet")
"""A map between walls: two axes, a given field and a scored one."""


def describe(kind: str, shapes: dict[str, ProblemShape] | None = None, **changes: Any) -> Description:
    """The description of a tiny network, of one periodic axis unless other shapes are given."""
    problems = {name: shape.to_json() for name, shape in (shapes or {PROBLEM: LINE}).items()}
    shared: Description = {"kind": kind, "problems": problems, "latent_dim": LATENT_DIM}
    if kind in {"autoencoder", "codec"}:
        return shared | {"encoder": NETWORK, "decoder": NETWORK} | changes
    if kind == "operator":
        plain = {
            "network": {"kind": "transformer"} | NETWORK,
            "linear_path": {},
            "conserve": False,
            "time_steps": [1],
            "average": {},
        }
        path = changes.pop("linear_path", "none")
        if path != "none":
            plain["linear_path"] = dict.fromkeys(problems, path)
        return shared | plain | changes
    leads = {name: 1 if shape["equation"] == "darcy2d" else LEADS for name, shape in problems.items()}
    return shared | {"network": RESIDUAL_NETWORK, "leads": leads} | changes


def fresh(kind: str, *, seed: int = 0, **changes: Any) -> nn.Module:
    """A network as training starts it."""
    torch.manual_seed(seed)
    return build_model(describe(kind, **changes))


def build(kind: str, *, seed: int = 0, scale: float = 0.2, **changes: Any) -> nn.Module:
    """A network all of whose weights and statistics are random."""
    model = fresh(kind, seed=seed, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
        for buffer in model.state_dict(keep_vars=True).values():
            if not isinstance(buffer, nn.Parameter) and buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model


def encoded_frames(codec: ProblemCodec, fields: Tensor, known: Tensor | None = None) -> Tensor:
    """Single frames [B, *grid, C], each the first of its trajectory, to latents [B, K, d]. known: [B, C]."""
    mask = None if known is None else known.unsqueeze(1)
    return codec.encode(fields.unsqueeze(1), torch.zeros(1), codec.frame(fields), mask)[:, 0]


def decoded_frames(codec: ProblemCodec, latents: Tensor, coordinates: Tensor | None = None) -> Tensor:
    """Latents [B, K, d] of frames that nothing moves to physical fields [B, Q, C]."""
    at_rest = ReferenceFrame.at_rest(
        codec.shape, torch.zeros(len(latents), *codec.shape.grid, codec.shape.channels)
    )
    return codec.decode(latents.unsqueeze(1), torch.zeros(1), at_rest, coordinates)[:, 0]


def normalisations(
    shapes: Mapping[str, ProblemShape], device: torch.device | str = "cpu"
) -> dict[str, Normalisation]:
    """Of fields that have mean zero and unit deviation already."""
    return {
        name: Normalisation(
            shape,
            {parameter.name: 0.5 for parameter in shape.problem.parameters},
            torch.zeros(shape.channels, device=device),
            torch.ones(shape.channels, device=device),
        )
        for name, shape in shapes.items()
    }


def evolutions(
    shapes: Mapping[str, ProblemShape], augment: tuple[Symmetry, ...] = ()
) -> dict[str, Evolution]:
    """Of frames 0.05 apart, as `waves` makes them."""
    return {
        name: Evolution(0.05, {parameter.name: 0.5 for parameter in shape.problem.parameters}, augment)
        for name, shape in shapes.items()
    }


def raw_residual(
    model: ResidualNetwork, forecast: Tensor, y: Tensor, scalars: Tensor, problem: str
) -> Tensor:
    """What the network itself says of noisy residuals y [B, T, K, d] of forecasts, the same shape."""
    context, conditions = model.conditioning(Forecast.single(forecast), scalars, problem)
    return model(y, torch.linspace(0.2, 1.2, len(y)), context, conditions, problem)


def waves(count: int, frames: int, *, grid: int = GRID, seed: int = 0) -> Tensor:
    """Travelling sums of three sines [count, frames, grid, 1]: smooth, periodic, of unit size."""
    generator = torch.Generator().manual_seed(seed)
    amplitude, phase, speed = torch.rand(3, count, 3, 1, 1, generator=generator)
    x = (torch.arange(grid) + 0.5) / grid
    t = torch.arange(frames)[:, None] * 0.05
    wavenumber = torch.arange(1, 4)[:, None, None]
    angle = 2 * torch.pi * (wavenumber * (x - speed * t) + phase)
    return ((0.5 + amplitude) * angle.sin()).sum(dim=1).unsqueeze(-1)


def random_batch(count: int, frames: int = LEADS, *, seed: int = 0) -> Batch:
    """Waves as fields, normal latents and forecasts."""
    generator = torch.Generator().manual_seed(seed)
    latents, forecasts = torch.randn(2, count, frames, TOKENS, LATENT_DIM, generator=generator)
    return Batch(
        problem=PROBLEM,
        scalars=torch.tensor([-3.0, -4.6]).expand(count, -1),
        fields=waves(count, frames, seed=seed),
        latents=latents,
        forecasts=forecasts,
        variances=torch.zeros(count, frames, TOKENS, 1),
    )


def problem_windows(
    *,
    length: int,
    fields: Tensor | None = None,
    latents: Tensor | None = None,
    scalars: Sequence[float] = (-3.0, -4.6),
    known: NDArray[np.bool_] | None = None,
) -> ProblemWindows:
    """Windows of fields [n, t, *grid, C] and of latents [n, t, K, d]."""
    present = fields if fields is not None else latents
    assert present is not None
    channels = 1 if fields is None else fields.shape[-1]
    return ProblemWindows(
        reader=InMemoryReader(device=torch.device("cpu"), fields=fields, latents=latents),
        length=length,
        scalars=list(scalars),
        known=np.ones((present.shape[1], channels), dtype=np.bool_) if known is None else known,
    )


@dataclass
class FixedBatches:
    """`random_batch` of every step: the source of a training that needs no data. Remembers nothing."""

    count: int
    frames: int = LEADS

    def batch(self, step: int) -> Batch:
        return random_batch(self.count, self.frames, seed=step)

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def single_rank() -> Ranks:
    """A world of one rank on the CPU."""
    return Ranks(0, 1, torch.device("cpu"))


def optimizer_of(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """Of a model that this rank holds whole."""
    return build_optimizer(dict(model.named_parameters()), Placement(single_rank()), **settings)


def state_of(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    *,
    decay: float = 0.99,
    ranks: Ranks | None = None,
    execution: Execution | None = None,
    step: int = 0,
) -> TrainingState:
    """The start of a training whose batches are given by hand."""
    replica = parallelise(model, objective, execution or Execution(), ranks or single_rank())
    average = ExponentialMovingAverage(replica.parameters, decay)
    return TrainingState(replica, optimizer, average, FixedBatches(8), step=step)
