"""What networks on a grid of tokens have in common: maps in and out, the condition, and the place between walls."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import WallEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.shape import ProblemShape


def by_axes(shape: ProblemShape) -> str:
    """Problems of one number of axes share all layers."""
    return f"axes_{len(shape.grid)}"


def representatives(
    shapes: Mapping[str, ProblemShape], key: Callable[[ProblemShape], str] = by_axes
) -> dict[str, ProblemShape]:
    """One of the problems that share layers, by what they share them by."""
    return {key(shape): shape for shape in shapes.values()}


class GridNetwork(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network.

    Between the maps in and out lies a body: forward(x [*tokens, B, W], boundary, condition [B, W]) to the shape of x.
    Axes of space come first, for shifting tokens then moves whole blocks of memory. Every token gets the condition
    before the body, which may make more of it.
    """

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        body: Callable[[ProblemShape], nn.Module],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        perceptrons: bool = False,
        shared: Callable[[ProblemShape], str] = by_axes,
    ) -> None:
        """body: made for one of the problems that share it.

        extra_scalars: conditioning scalars beside those of the problem.
        perceptrons: maps in and out have a hidden layer of twice the width.
        shared: problems with one answer share a body.
        """
        super().__init__()
        self.shapes, self.shared = dict(shapes), shared
        hidden = 2 * width
        self.lift = (
            nn.Sequential(Float32Linear(inputs, hidden), nn.GELU(), Float32Linear(hidden, width))
            if perceptrons
            else Float32Linear(inputs, width)
        )
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.walls = nn.ModuleDict(
            {module_key(name): WallEmbedding(shape.token_grid, width) for name, shape in shapes.items()}
        )
        self.bodies = nn.ModuleDict(
            {key: body(shape) for key, shape in sorted(representatives(shapes, shared).items())}
        )
        self.projection = (
            nn.Sequential(Float32Linear(width, hidden), nn.GELU()) if perceptrons else nn.Identity()
        )
        self.output = Float32Linear(hidden if perceptrons else width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        shape = self.shapes[problem]
        condition = self.condition(scalars, problem)
        x = self.walls[module_key(problem)](self.lift(tokens) + condition.unsqueeze(1))
        x = x.transpose(0, 1).unflatten(0, shape.tokens)
        x = self.bodies[self.shared(shape)](x, shape.boundary, condition)
        return self.output(self.projection(x)).flatten(0, len(shape.tokens) - 1).transpose(0, 1)
