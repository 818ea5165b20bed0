"""Encoder of points: values at irregular places to latent tokens.

Of UPT (Alkin et al. 2024, arXiv:2402.12365, section 3.1): supernodes; a graph that joins each with the points within a radius,
at most so many; messages along its edges, whose mean a supernode keeps; pooling by attention from the
queries of the latent tokens to all supernodes (Perceiver, Jaegle et al. 2021, arXiv:2103.03206); transformer blocks.

Ours:

- Supernodes are the points of the models' grid and not a random part of the given ones, and a token's query is made of the supernodes
  of its own patch, and not one learnt vector for all fields. So tokens lie where those of the grid encoder lie, and every operator
  and the any-point decoder work on them.
- The network is a correction, zero at first, of an interpolation that needs no training: the best linear estimate of the value at a
  supernode from its neighbours, for a random field of a given smoothness and unknown mean (ordinary kriging with Matern's
  covariances 1/2, 3/2 and 5/2: Rasmussen and Williams 2006, section 4.2.1; the first without a scale, so that on a line it is
  straight between neighbours). It gives back what was seen where it was seen. On 128 random points of Burgers' fields it errs by a
  third to a fifth of straight lines, by the mean over trajectories and over frames.
- A message is a filter of the edge's offset times the difference of the values (continuous convolution: SchNet, Schuett et al. 2017,
  arXiv:1706.08566; PointConv, Wu et al. 2019, arXiv:1811.07246), and not a perceptron of both. The mean of such perceptrons cannot
  tell which value is where: trained for 500 steps on the supernodes of most doubt alone, it took 1 % off the interpolation's error
  at held-out ones, filters 12 %. They are also the same for all frames of a trajectory, and are computed once.
- Messages and correction are in units of how much the neighbours' values differ from the estimate, and the correction vanishes with
  the deviation that this estimate expects of itself: none where a point lies on the supernode. Errors differ by powers of ten: nearly
  all of them is at fronts within gaps, in few frames of a batch. Trained on whole frames, 600 steps of 32 (configs/burgers_points.yaml),
  the network takes nothing off Burgers' error that could be measured; what is gained there is the interpolation's.
- Pooled tokens go back to the supernodes of their patch, where they meet what each has of its own.
- Positions enter as differences alone, wrapped around periodic axes, and attention by periodic rotations: moving all points by one
  patch moves the tokens by one, and changes nothing else. The order of the points is nowhere: neighbours are sorted by distance.
- Fields are measured from their mean over the points in units of their deviation: a constant added to a field is added to the
  result, and a factor is a factor. So no statistics of a training are needed to read points.

Rejected: supernodes as tokens of their own blocks before pooling (UPT's four), quadratic in their number; learnt lengths of the
covariance, of which a fifth and a twentieth of the domain are as good as a tenth.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.embedding import PositionEmbedding, module_key
from ups.models.encoders.grid import GridEncoder
from ups.models.float32 import Float32Linear
from ups.models.rotary import rotate
from ups.models.shape import ProblemShape
from ups.models.token_grid import TokenGrid, cell_centres
from ups.models.transformer import Block

_PAIRS_AT_ONCE = 2**21  # of supernodes and points, whose distances are held: some 50 MiB
_EDGES_AT_ONCE = 2**15  # whose messages are held: 8 MiB at a width of 64, near what a core's cache holds
_REACH = 4  # cells in which offsets are counted
_TINY = 1e-10  # of squares, in the field's variance: a flat neighbourhood has no unit of its own
_NUGGET = (
    1e-9  # variance of noise in the values, over the field's: points as near as rounding do not make a slope
)


class PointGraph(NamedTuple):
    """What joins the S supernodes of n trajectories with their k nearest points.

    Attributes:
        nearest: [n, S, k] of the points, nearest first.
        near: [n, S, k] bool, whether they are within the radius, and present.
        offset: [n, S, k, axes] from the supernode, in cells of the grid.
        weight: [n, S, k] of the interpolation; sums to 1.
        doubt: [n, S] the deviation that the interpolation expects of itself, over the field's.
    """

    nearest: Tensor
    near: Tensor
    offset: Tensor
    weight: Tensor
    doubt: Tensor


def encoder(
    shapes: Mapping[str, ProblemShape],
    *,
    latent_dim: int,
    points: int,
    radius: float,
    neighbours: int,
    smoothness: int,
    width: int,
    depth: int,
    heads: int,
    ratio: int,
) -> GridEncoder:
    """See `ups.models.autoencoder`. Arguments as in the configuration's model.encoder."""
    return PointEncoder(
        shapes,
        _Correction(shapes, width, depth, heads, ratio) if depth else None,
        latent_dim=latent_dim,
        points=points,
        radius=radius,
        neighbours=neighbours,
        smoothness=smoothness,
    )


class PointEncoder(GridEncoder):
    """The linear map of the grid's patches, behind what makes a grid's fields of values at points; see the module."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        network: nn.Module | None,
        *,
        latent_dim: int,
        points: int,
        radius: float,
        neighbours: int,
        smoothness: int,
    ) -> None:
        super().__init__(shapes, latent_dim=latent_dim, width=0, depth=0, heads=1, ratio=1)
        self.network, self.points = network, points
        self.radius, self.neighbours, self.smoothness = radius, neighbours, smoothness

    def graph(self, coordinates: Tensor, problem: str, present: Tensor | None = None) -> PointGraph:
        """Coordinates [n, P, axes] in domain lengths to their graph.

        present: [n, P] bool, false where a shorter set was filled up; None: all are there.
        """
        grid = self.token_grids[problem]
        centres = cell_centres(grid.grid).to(coordinates.device).double()
        nearest = min(self.neighbours, coordinates.shape[1])
        pairs = coordinates.shape[0] * max(coordinates.shape[1], nearest**2)
        parts = [
            self._joined(coordinates.double(), some, grid, nearest, present)
            for some in centres.split(max(1, _PAIRS_AT_ONCE // pairs))
        ]
        return PointGraph(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))

    def from_points(
        self, values: Tensor, coordinates: Tensor, problem: str, present: Tensor | None = None
    ) -> Tensor:
        grid = self.token_grids[problem].grid
        edges = math.prod(grid) * min(self.neighbours, coordinates.shape[1])
        at_once = max(1, _EDGES_AT_ONCE // edges)
        parts = []
        for start in range(0, len(values), at_once):
            rows = slice(start, start + at_once)
            there = None if present is None else present[rows]
            graph = self.graph(coordinates[rows], problem, there)
            frames = max(1, at_once // len(graph.nearest))
            parts.append(
                torch.cat(
                    [self._fields(some, graph, problem, there) for some in values[rows].split(frames, dim=1)],
                    dim=1,
                )
            )
        return torch.cat(parts).unflatten(2, grid)

    def _joined(
        self, coordinates: Tensor, centres: Tensor, grid: TokenGrid, nearest: int, present: Tensor | None
    ) -> PointGraph:
        """The graph of some supernodes [S, axes]."""
        wraps = torch.tensor(grid.periodic, device=centres.device)
        offset = coordinates[:, None] - centres[:, None]
        offset = offset - offset.round() * wraps
        distance = offset.norm(dim=-1)
        if present is not None:
            distance = distance.masked_fill(~present[:, None], torch.inf)
        index = distance.topk(nearest, largest=False).indices
        offset = offset.gather(2, index[..., None].expand(*index.shape, offset.shape[-1]))
        distance = distance.gather(2, index)
        near = distance <= self.radius
        weight, deviation = _best_linear(offset / self.radius, near, self.smoothness)
        cells = offset * torch.tensor(grid.grid, device=centres.device)
        cells = cells.masked_fill(~near[..., None], 0.0)
        return PointGraph(index, near, cells.float(), weight.float(), deviation.float())

    def _fields(self, values: Tensor, graph: PointGraph, problem: str, present: Tensor | None) -> Tensor:
        """Values [n, t, P, C] to those at the supernodes [n, t, S, C]."""
        there = values.new_ones(1, 1, 1, 1) if present is None else present[:, None, :, None].to(values.dtype)
        count = there.sum(dim=2, keepdim=True) if present is not None else values.shape[2]
        mean = (values * there).sum(dim=2, keepdim=True) / count
        centred = (values - mean) * there
        deviation = (centred.square().sum(dim=2, keepdim=True) / count).sqrt()
        scaled = centred / deviation.clamp_min(torch.finfo(values.dtype).tiny)
        rows = torch.arange(len(values), device=values.device)
        seen = scaled.transpose(1, 2)[rows[:, None, None], graph.nearest].permute(0, 3, 1, 2, 4)
        result = torch.einsum("ntskc,nsk->ntsc", seen, graph.weight)
        if self.network is not None:
            result = result + self.network(seen, result, graph, problem)
        return result * deviation + mean


def _best_linear(offset: Tensor, near: Tensor, smoothness: int) -> tuple[Tensor, Tensor]:
    """Weights [..., k] of values at offsets [..., k, axes] from a place, in radii, and the deviation [...] that is left.

    Ordinary kriging: K w = c + m 1, with m such that weights sum to 1. Points that are not near have no weight.
    """
    mask = near.to(offset.dtype)
    # Not of `cdist`, whose gradient at a distance of 0 would be the square root's.
    between = offset[..., :, None, :] - offset[..., None, :, :]
    matrix = _covariance(between, smoothness) * mask[..., :, None] * mask[..., None, :]
    matrix = matrix + torch.diag_embed(_NUGGET * mask + (1 - mask))
    there = _covariance(offset, smoothness) * mask
    factor = torch.linalg.cholesky_ex(matrix).L
    known, one = torch.cholesky_solve(torch.stack([there, mask], dim=-1), factor).unbind(dim=-1)
    slack = (1 - known.sum(dim=-1)) / one.sum(dim=-1)
    weight = known + slack[..., None] * one
    variance = 1 - (weight * there).sum(dim=-1) + slack
    return weight, variance.clamp_min(_NUGGET).sqrt()


def _covariance(offset: Tensor, smoothness: int) -> Tensor:
    """Of values so far apart, [..., axes] in radii, over their variance."""
    squares = offset.square().sum(dim=-1)
    distance = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
    if smoothness == 0:
        return 1 - distance / 4  # of two points of one ball: positive definite
    scaled = (2 * smoothness + 1) ** 0.5 * distance
    polynomial = 1 + scaled if smoothness == 1 else 1 + scaled + scaled.square() / 3
    return polynomial * torch.exp(-scaled)


class _Correction(nn.Module):
    """Messages, pooling and transformer blocks to what is added to the supernodes' values, zero at first."""

    def __init__(
        self, shapes: Mapping[str, ProblemShape], width: int, depth: int, heads: int, ratio: int
    ) -> None:
        super().__init__()
        self.token_grids = {name: shape.token_grid for name, shape in shapes.items()}
        self.width = width
        axes = {name: len(shape.grid) for name, shape in shapes.items()}
        self.filters = nn.ModuleDict(
            {module_key(name): Float32Linear(axes[name] + 1, width) for name in shapes}
        )
        self.geometry = nn.Linear(width + 1, width)
        self.messages = nn.ModuleDict(
            {
                module_key(name): Float32Linear((width + 1) * shape.channels, width)
                for name, shape in shapes.items()
            }
        )
        self.nodes = nn.Linear(width, width)
        self.back = nn.ModuleDict(
            {
                module_key(name): nn.Linear(width, shape.token_grid.patch_points * width)
                for name, shape in shapes.items()
            }
        )
        self.queries = nn.ModuleDict(
            {
                module_key(name): nn.Linear(shape.token_grid.patch_points * width, width)
                for name, shape in shapes.items()
            }
        )
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.token_grid, width, heads)
                for name, shape in shapes.items()
            }
        )
        self.pooling = _Pooling(shapes, width, heads)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.outputs = nn.ModuleDict(
            {module_key(name): Float32Linear(width, shape.channels) for name, shape in shapes.items()}
        )
        for output in self.outputs.parameters():
            nn.init.zeros_(output)

    def forward(self, seen: Tensor, estimate: Tensor, graph: PointGraph, problem: str) -> Tensor:
        """Values of neighbours [n, t, S, k, C] and estimates [n, t, S, C], in deviations of the field, to changes [n, t, S, C]."""
        key, grid = module_key(problem), self.token_grids[problem]
        near = graph.near[..., None].to(seen.dtype)
        share = near / near.sum(dim=2, keepdim=True)
        differences = seen - estimate[..., None, :]
        unit = (torch.einsum("nsk,ntskc->ntsc", share[..., 0], differences.square()) + _TINY).sqrt()
        typical = graph.doubt.square().mean(dim=1, keepdim=True).sqrt()
        doubt = (graph.doubt / typical)[..., None]
        # Filters are of places alone: once for all frames of a trajectory.
        places = torch.cat([graph.offset / _REACH, graph.weight[..., None]], dim=-1)
        filters = F.gelu(self.filters[key](places), approximate="tanh") * share
        around = self.geometry(torch.cat([filters.sum(dim=2), doubt.log()], dim=-1))
        mean = torch.einsum("nskw,ntskc->ntswc", filters, differences / unit[..., None, :])
        told = self.messages[key](torch.cat([mean.flatten(-2), unit.log()], dim=-1))
        nodes = self.nodes(F.gelu(told + around[:, None], approximate="tanh")).flatten(0, 1)
        position = self.positions[key]
        x = position(self.queries[key](grid.patchify(nodes.unflatten(1, grid.grid))))
        x = x + self.pooling(x, nodes, problem)
        for block in self.blocks:
            x = block(x, position)
        back = grid.unpatchify(self.back[key](x)).flatten(1, -2)
        change = self.outputs[key](F.gelu(nodes + back, approximate="tanh")).unflatten(0, seen.shape[:2])
        return change * unit * (doubt / (1 + doubt))[:, None]


class _Pooling(nn.Module):
    """Attention from tokens [B, K, W] to supernodes [B, S, W], with rotary positions of both; zero at first."""

    def __init__(self, shapes: Mapping[str, ProblemShape], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.node_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.output.weight)
        for name, shape in shapes.items():
            grid, size = shape.token_grid, width // heads
            places = grid.rotation(cell_centres(grid.grid), size, max(grid.tokens) // 2)
            for kind, table in (("tokens", grid.token_rotation(size)), ("nodes", places)):
                self.register_buffer(f"{kind}_{module_key(name)}", table[:, :, None], persistent=False)

    def forward(self, x: Tensor, nodes: Tensor, problem: str) -> Tensor:
        key = module_key(problem)
        query = self.query(self.query_norm(x)).unflatten(-1, (self.heads, -1))
        at_nodes = self.key_value(self.node_norm(nodes)).unflatten(-1, (2, self.heads, -1))
        keys, values = at_nodes.unbind(dim=2)
        pooled = F.scaled_dot_product_attention(
            rotate(query, self.get_buffer(f"tokens_{key}")).transpose(1, 2),
            rotate(keys, self.get_buffer(f"nodes_{key}")).transpose(1, 2),
            values.transpose(1, 2),
        )
        return self.output(pooled.transpose(1, 2).flatten(-2))
