"""The training loop of every stage: batches, steps, records, validation, checkpoints, interruption."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from ups.data.batch import Batch
from ups.errors import Interrupted
from ups.objectives import Objective
from ups.optim.adamw import build_adamw
from ups.optim.ema import ExponentialMovingAverage
from ups.optim.schedule import learning_rate
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import Ranks
from ups.runtime.records import Records
from ups.training.checkpoint import load_checkpoint, save_checkpoint
from ups.training.step import TrainingState, training_step

log = logging.getLogger(__name__)


Validation = Callable[[nn.Module], dict[str, float]]
"""Scores of the model with averaged weights, in evaluation mode, without gradients; runs on rank 0 only."""


class BatchSource(Protocol):
    """Batches by step number: stateless, so that resuming needs no cursor."""

    def batch(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class LoopSettings:
    """Plain settings of one training; units are steps unless said otherwise."""

    stage: str
    seed: int
    steps: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    gradient_clip: float
    ema_decay: float
    checkpoint_every: int
    log_every: int
    validate_every: int
    threads: int
    bf16: bool


def train(
    model: nn.Module,
    objective: Objective,
    source: BatchSource,
    validate: Validation,
    settings: LoopSettings,
    ranks: Ranks,
    work: Path,
) -> TrainingState:
    """Train to the last step, resuming from whatever `work/checkpoints` holds.

    Args:
        model: initialised by the caller from the seed, equal on all ranks.
        validate: gets the model with averaged weights in evaluation mode; called on rank 0, where it must
            not use collectives.
        work: directory of this training; records go to `work/output/logs/metrics.jsonl`.

    Returns:
        The final state; its `ema` holds the weights to publish.

    Raises:
        Interrupted: after SIGTERM, when a checkpoint and `work/interrupted.json` are written.
        NotFiniteError: see `training_step`.
    """
    optimizer = build_adamw(
        model,
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    state = TrainingState(model, optimizer, ExponentialMovingAverage(model, settings.ema_decay))
    layout = {"world": ranks.world, "threads": settings.threads}
    load_checkpoint(work / "checkpoints", state, layout=layout)
    records = None
    if ranks.is_first:
        records = Records(work / "output" / "logs" / "metrics.jsonl", resume_step=state.step)
        if state.step:
            log.info("%s resumes at step %d of %d", settings.stage, state.step, settings.steps)
    model.train()
    window_start, window_step, waited = time.perf_counter(), state.step, 0.0
    while state.step < settings.steps:
        step = state.step
        fetch_start = time.perf_counter()
        batch = source.batch(step).to(ranks.device)
        waited += time.perf_counter() - fetch_start
        generator = torch_generator(
            settings.seed, settings.stage, "noise", step, ranks.rank, device=ranks.device
        )
        rate = learning_rate(
            step,
            steps=settings.steps,
            warmup=settings.warmup_steps,
            peak=settings.learning_rate,
            final=settings.final_learning_rate,
        )
        logged = training_step(
            state,
            objective,
            batch,
            generator,
            ranks,
            learning_rate=rate,
            gradient_clip=settings.gradient_clip,
            autocast=settings.bf16,
        )
        last = state.step == settings.steps
        if records and (last or state.step % settings.log_every == 0 or state.step == 1):
            elapsed = time.perf_counter() - window_start
            record = {"step": state.step, "steps": settings.steps}
            record |= {name: value.item() for name, value in logged.items()}
            record |= {
                "learning_rate": rate,
                "seconds_per_step": elapsed / (state.step - window_step),
                "data_wait_fraction": waited / elapsed,
            }
            records.append(record)
            log.info(
                "%s %d/%d  loss %.4g  %.3f s/step  data wait %.1f %%",
                settings.stage, state.step, settings.steps,
                record["loss"], record["seconds_per_step"], 100 * record["data_wait_fraction"],
            )  # fmt: skip
            window_start, window_step, waited = time.perf_counter(), state.step, 0.0
        if records and (last or state.step % settings.validate_every == 0):
            started = time.perf_counter()
            scores = _validate(model, state.ema, validate)
            records.append({"step": state.step, "steps": settings.steps} | scores)
            log.info(
                "%s %d/%d  %s",
                settings.stage, state.step, settings.steps, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()),
            )  # fmt: skip
            window_start += time.perf_counter() - started
        stop = ranks.should_stop()
        if ranks.is_first and (last or stop or state.step % settings.checkpoint_every == 0):
            save_checkpoint(work / "checkpoints", state, layout=layout)
        if stop and not last:
            if ranks.is_first:
                (work / "interrupted.json").write_text(json.dumps({"step": state.step}))
            raise Interrupted(
                f"stopped by a signal at step {state.step} of {settings.steps}; a checkpoint is written",
                where=settings.stage,
                fix="the same command resumes at this step",
            )
    if records:
        records.close()
    return state


@torch.no_grad()
def _validate(model: nn.Module, ema: ExponentialMovingAverage, validate: Validation) -> dict[str, float]:
    model.eval()
    with ema.applied_to(model):
        scores = validate(model)
    model.train()
    return scores
