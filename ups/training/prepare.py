"""What is done to a model's networks before they are trained: activation checkpointing and compilation.

The modules stay what they are, with the names that checkpoints and optimisers know.
"""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ups.config.schema import Execution

log = logging.getLogger(__name__)


def prepare(model: nn.Module, execution: Execution) -> None:
    """Prepare a model as a configuration asks for it, in place."""
    blocks, every = list(blocks_of(model)), execution.activation_checkpointing
    if execution.compile == "blocks":
        for block in blocks:
            # And not `block.compile`, which compiles hooks too: those of FSDP stay outside.
            block.forward = torch.compile(block.forward, fullgraph=True)
    if every:
        log.info("%d of %d blocks are computed again in the backward pass", len(blocks[::every]), len(blocks))
        for block in blocks[::every]:
            # No network here draws random numbers, whose state could not be read while a graph is captured.
            whole = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = whole  # pyright: ignore[reportAttributeAccessIssue]
    if execution.compile is True:
        # Around the network lies what is exact, in another precision. A graph break would run a part uncompiled, without a word.
        getattr(model, "network", model).compile(fullgraph=True)


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """Members of lists of modules, but single layers; what is in a member is part of it."""
    for child in module.children():
        members = child.children() if isinstance(child, nn.ModuleList) else ()
        for member in members:
            if isinstance(member, nn.ModuleList):
                yield from member.children()
            elif next(member.children(), None) is not None:
                yield member
        if not isinstance(child, nn.ModuleList):
            yield from blocks_of(child)
