"""What is done to a model's networks before they are trained: activation checkpointing and compilation.

The modules stay what they are, with the names that checkpoints and optimisers know. What is compiled is compiled whole: a graph break
would run a part of it uncompiled, without a word, and is an error here (`fullgraph`).

Rejected: the mode reduce-overhead, with which each compiled network makes CUDA graphs of its own; `ups.training.capture` has
those of the whole step. To compile the codec where it is in a loss: it is also called in validations, with other numbers of frames, and
each problem, number and state of gradients is another program, of which torch makes eight of a function before it gives up.
"""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ups.config.schema import Execution
from ups.runtime.ranks import make_compiler_deterministic

log = logging.getLogger(__name__)

_aten = torch.ops.aten
_keep_products = partial(
    create_selective_checkpoint_contexts,
    [
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten.baddbmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    ],
)
"""Nearly all of a block's arithmetic; what lies between is computed again for little."""


def prepare(model: nn.Module, execution: Execution) -> None:
    """Prepare a model as a configuration asks for it, in place."""
    blocks, recomputed = list(blocks_of(model)), execution.activation_checkpointing
    for key, asked in (
        ("compile: blocks", execution.compile == "blocks"),
        ("activation_checkpointing", recomputed),
    ):
        if asked and not blocks:
            # And no error: another of the configuration's stages may have some.
            log.warning("execution.%s changes nothing here: this model has no blocks", key)
    if recomputed:
        every = 1 if recomputed == "products" else recomputed
        kept = {"context_fn": _keep_products} if recomputed == "products" else {}
        log.info("%d of %d blocks are computed again in the backward pass", len(blocks[::every]), len(blocks))
        for block in blocks[::every]:
            # No network here draws random numbers, whose state could not be read while a graph is captured.
            whole = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, **kept)
            block.forward = whole  # pyright: ignore[reportAttributeAccessIssue]
    if execution.compile:
        make_compiler_deterministic()
    if execution.compile == "blocks":
        for block in blocks:
            # Around the checkpoint, so that the compiler sees what it keeps. And not `block.compile`, which compiles
            # hooks too: those of FSDP stay outside.
            block.forward = torch.compile(block.forward, fullgraph=True)
    if execution.compile in (True, "max-autotune"):
        # Around the network lies what is exact, in another precision.
        mode = "max-autotune-no-cudagraphs" if execution.compile == "max-autotune" else None
        getattr(model, "network", model).compile(fullgraph=True, mode=mode)


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
