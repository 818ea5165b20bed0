"""What is done to a model's networks before they are trained: activation checkpointing and compilation.

The modules stay what they are, with the names that checkpoints and optimisers know.
"""

from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ups.config.schema import Execution


def prepare(model: nn.Module, execution: Execution) -> None:
    """Prepare a model as a configuration asks for it, in place."""
    every = execution.activation_checkpointing
    if every:
        for block in list(_blocks(model))[::every]:
            # No network here draws random numbers, whose state could not be read while a graph is captured.
            whole = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = whole  # pyright: ignore[reportAttributeAccessIssue]
    if execution.compile:
        # Around the network lies what is exact, in another precision. A graph break would run a part uncompiled, without a word.
        getattr(model, "network", model).compile(fullgraph=True)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of lists of modules, outermost first: what is in a member is part of it."""
    for child in module.children():
        members = child.children() if isinstance(child, nn.ModuleList) else ()
        for member in members:
            if isinstance(member, nn.ModuleList):
                yield from member.children()
            else:
                yield member
        if not isinstance(child, nn.ModuleList):
            yield from _blocks(child)
