"""What the four training stages have in common: settings from the configuration, the published weights, the summary."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from ups.artifacts.files import read_records
from ups.config.training import Training
from ups.models.build import MODEL_FILE, Description, build_model, save_model
from ups.runtime.randomness import derive_seed
from ups.runtime.ranks import Ranks
from ups.runtime.request import Request
from ups.training.loop import Validation, train, validate_untrained
from ups.training.objectives import Objective
from ups.training.step import BatchSource

log = logging.getLogger(__name__)


def initial_model(description: Description, request: Request, ranks: Ranks) -> nn.Module:
    """A model whose initial weights are a function of the seed and the stage, equal on all ranks."""
    torch.manual_seed(derive_seed(request.configuration.seed, request.stage, "weights"))
    model = build_model(description).to(ranks.device)
    log.info("%s: %d parameters", request.stage, sum(p.numel() for p in model.parameters()))
    return model


def train_and_publish(
    model: nn.Module,
    description: Description,
    objective: Objective,
    source: BatchSource,
    validation: Validation,
    settings: Training,
    request: Request,
    ranks: Ranks,
    *,
    summary: dict[str, Any] | None = None,
    finish: Callable[[], None] | None = None,
    written: nn.Module | None = None,
) -> None:
    """Train, write the averaged weights as `model.safetensors`, and report.

    Without steps, or without trainable weights, the model is validated and written as it is.

    summary: what was decided at the start and belongs into the manifest.
    finish: the last thing before the model is written: on every rank, with the averaged weights in the model, in
        evaluation mode. (The others wait for what the first rank does by itself, and give up when their communication times out.)
    written: the part of the model that is written; None: all of it.
    """
    configuration = request.configuration
    averaged, published, summary = nullcontext(), dict[str, Any](), summary or {}
    if settings.steps and any(parameter.requires_grad for parameter in model.parameters()):
        state = train(
            model,
            objective,
            source,
            validation,
            settings,
            ranks,
            request.work,
            stage=request.stage,
            seed=configuration.seed,
            execution=configuration.execution,
        )
        averaged = state.replica.averaged(state.published)
        summary = summary | {"cuda_graphs": configuration.execution.cuda_graphs}
        if settings.publish == "best":
            # Of the last record, the error is of other weights.
            published = {"published_step": state.best.step, validation.metric: state.best.error}
        if len(state.layouts) > 1:
            summary = summary | {"layouts": state.layouts}
    else:
        log.info("%s: nothing to train", request.stage)
        validate_untrained(model, validation, request.stage, ranks, request.work)
    with averaged:
        if finish is not None:
            model.eval()
            finish()
        if ranks.is_first:
            save_model(request.output / MODEL_FILE, written or model, description)
    if ranks.is_first:
        request.finish(summary | _summary(model, request) | published)
    ranks.barrier()


def latent_description(kind: str, codec: Description) -> Description:
    """The part of a description that every model on the latents of a codec shares."""
    return {"kind": kind, **{name: codec[name] for name in ("problems", "latent_dim", "codec")}}


def _summary(model: nn.Module, request: Request) -> dict[str, Any]:
    records = read_records(request.output / "logs" / "metrics.jsonl")
    last: dict[str, Any] = {}
    for record in records:
        last |= record
    kept = {name: value for name, value in last.items() if name not in {"step", "seconds_per_step"}}
    return {"parameters": sum(p.numel() for p in model.parameters())} | kept
