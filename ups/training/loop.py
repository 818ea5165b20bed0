"""The training loop of every stage: batches, steps, records, validation, checkpoints, interruption."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ups.artifacts.files import write_json
from ups.config.schema import Execution
from ups.config.stage import LAYOUT
from ups.config.training import Training
from ups.errors import Interrupted
from ups.runtime.precision import AUTOCAST, require_tensor_float_32, tensor_float_32
from ups.runtime.randomness import derive_seed
from ups.runtime.ranks import Ranks
from ups.runtime.records import Records
from ups.training.best import Best
from ups.training.capture import CapturedUpdate
from ups.training.checkpoint import Checkpoints
from ups.training.ema import ExponentialMovingAverage
from ups.training.loss_scale import LossScale
from ups.training.objectives import Objective
from ups.training.optimizers import build_optimizer
from ups.training.parallel import Replica, parallelise
from ups.training.schedules import learning_rate
from ups.training.step import BatchSource, TrainingState, Update, training_step
from ups.training.throughput import Throughput, throughput_line

log = logging.getLogger(__name__)


Errors = dict[str, Tensor]
"""Validation errors per problem: one number for each example of this rank's share, which may be none."""


@dataclass(frozen=True)
class Validation:
    """How a stage is validated.

    Attributes:
        metric: name of the error in the record.
        errors: of the model with averaged weights, in evaluation mode, without gradients; it runs on every rank,
            over that rank's share of the validation split, without collectives.
    """

    metric: str
    errors: Callable[[nn.Module], Errors]


def train(
    model: nn.Module,
    objective: Objective,
    source: BatchSource,
    validation: Validation,
    settings: Training,
    ranks: Ranks,
    work: Path,
    *,
    stage: str,
    seed: int,
    execution: Execution,
) -> TrainingState:
    """Train to the last step, resuming from whatever `work/checkpoints` holds.

    Args:
        model: initialised by the caller from the seed, equal on all ranks.
        source: its mixture of problems follows the validation errors, which are the same on all ranks.
        settings: of this training; its batch size is the source's business.
        work: directory of this training; records go to `work/output/logs/metrics.jsonl`.
        seed: with the stage and the step, of the noise.
        execution: how steps are computed; a checkpoint is resumed with its number of threads and ranks, or, where the layout may
            change, not bit for bit.

    Returns:
        The final state; its `ema` holds the weights to publish.

    Raises:
        Interrupted: after SIGTERM, when a checkpoint and `work/interrupted.json` are written.
        PreflightError: the precision is not to be had on this device.
        NotFiniteError: loss or gradient became NaN or infinite; no checkpoint was written since.
    """
    if execution.precision == "tf32":
        require_tensor_float_32(ranks.device)
    model.train()
    replica = parallelise(model, objective, execution, ranks)
    optimizer = build_optimizer(
        replica.parameters,
        replica,
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        **settings.optimizer.model_dump(),
    )
    average = ExponentialMovingAverage(replica.parameters, settings.ema_decay)
    best = Best(keeps=settings.publish == "best")
    loss_scale = LossScale(ranks.device) if execution.precision == "fp16" else None
    state = TrainingState(replica, optimizer, average, source, best, loss_scale=loss_scale)
    layout = execution.model_dump(include=set(LAYOUT)) | {"processes": ranks.world}
    checkpoints = Checkpoints(work / "checkpoints")
    checkpoints.load(state, layout, may_change=execution.allow_layout_change)
    records = None
    if ranks.is_first:
        records = Records(work / "output" / "logs" / "metrics.jsonl", resume_step=state.step)
        if state.step:
            log.info("%s resumes at step %d of %d", stage, state.step, settings.steps)
    schedule = settings.schedule.model_dump()
    generator = torch.Generator(ranks.device)
    update = Update(
        state,
        generator,
        settings.gradient_clip,
        autocast=AUTOCAST.get(execution.precision),
        accumulation=settings.accumulation,
    )
    take = CapturedUpdate(update) if execution.cuda_graphs is True else update
    throughput = Throughput()
    window_start, window_step, waited = time.perf_counter(), state.step, 0.0
    with checkpoints:
        while state.step < settings.steps and not _ends_early(state.best, settings):
            step = state.step
            fetch_start = time.perf_counter()
            batch = source.batch(step).to(ranks.device)
            waited += time.perf_counter() - fetch_start
            noise = derive_seed(seed, stage, "noise", step, ranks.rank)
            if throughput.flops is None:
                started = time.perf_counter()
                generator.manual_seed(noise)
                throughput.count_flops(update, batch)
                window_start += time.perf_counter() - started
            generator.manual_seed(noise)
            rate = learning_rate(
                step,
                steps=settings.steps,
                warmup=settings.warmup_steps,
                peak=settings.learning_rate,
                final=settings.final_learning_rate,
                schedule=schedule,
            )
            with tensor_float_32(allowed=execution.precision == "tf32"):
                state.latest[batch.problem] = training_step(state, batch, take, learning_rate=rate)
            last, stop = state.step == settings.steps, ranks.should_stop()
            validated = last or state.step % settings.validate_every == 0
            recorded = validated or state.step % settings.log_every == 0 or state.step == 1
            kept = last or stop or state.step % settings.checkpoint_every == 0
            if recorded or validated or kept:
                state.finiteness.check(state.step)
            if records and recorded:
                elapsed = time.perf_counter() - window_start
                record = {"step": state.step, "steps": settings.steps}
                record |= _averaged(state.latest)
                record |= {
                    "learning_rate": rate,
                    "seconds_per_step": elapsed / (state.step - window_step),
                    "data_wait_fraction": waited / elapsed,
                }
                records.append(record)
                log.info(
                    "%s %d/%d  loss %.4g  %.3f s/step  data wait %.1f %%",
                    stage, state.step, settings.steps,
                    record["loss"], record["seconds_per_step"], 100 * record["data_wait_fraction"],
                )  # fmt: skip
                throughput.add(state.step - window_step, elapsed, waited)
                window_start, window_step, waited = time.perf_counter(), state.step, 0.0
                state.latest = {}
            paused = time.perf_counter()
            if validated:
                errors, taken = _timed(replica, state.ema.weights, validation)
                source.reweigh(state.step, errors)
                state.best.note(state.step, errors, state.ema.weights)
                if _ends_early(state.best, settings):
                    log.info("%s ends early: no lower error since step %d", stage, state.best.step)
                    last = kept = True
                if records:
                    scores = _named(validation.metric, errors)
                    _record(records, stage, state.step, settings.steps, scores, taken)
                if last:
                    raw, taken = _timed(replica, replica.parameters, validation)
                    if records:
                        scores = {f"{validation.metric}_raw": sum(raw.values()) / len(raw)}
                        _record(records, stage, state.step, settings.steps, scores, taken)
            if kept:
                checkpoints.save(state)
            window_start += time.perf_counter() - paused
            if stop and not last:
                checkpoints.wait()
                if ranks.is_first:
                    write_json(work / "interrupted.json", {"step": state.step})
                ranks.barrier()  # a rank that left would have the launcher end the others, and the first still writes
                raise Interrupted(
                    f"stopped by a signal at step {state.step} of {settings.steps}; a checkpoint is written",
                    where=stage,
                    fix="the same command resumes at this step",
                )
    if records:
        if throughput.steps:
            reached = throughput.record(ranks.device, execution.precision, int(state.clipped))
            if isinstance(take, CapturedUpdate):
                reached |= {"captured_graphs": take.captured, "discarded_graphs": take.discarded}
            records.append({"step": state.step, "steps": settings.steps} | reached)
            log.info("%s: %s", stage, throughput_line(reached))
        records.close()
    return state


def _ends_early(best: Best, settings: Training) -> bool:
    return settings.early_stop is not None and best.since >= settings.early_stop


def validate_untrained(
    model: nn.Module, validation: Validation, stage: str, ranks: Ranks, work: Path
) -> None:
    """The record of a training without steps: the validation error of the model as it is."""
    errors = _validate(model, validation, ranks)
    if ranks.is_first:
        records = Records(work / "output" / "logs" / "metrics.jsonl", resume_step=-1)
        _record(records, stage, 0, 0, _named(validation.metric, errors))
        records.close()


def _record(
    records: Records,
    stage: str,
    step: int,
    steps: int,
    scores: dict[str, float],
    seconds: float | None = None,
) -> None:
    taken = {} if seconds is None else {"validation_seconds": seconds}
    records.append({"step": step, "steps": steps} | scores | taken)
    text = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
    log.info("%s %d/%d  %s", stage, step, steps, text)


def _timed(
    replica: Replica, weights: Mapping[str, Tensor], validation: Validation
) -> tuple[dict[str, float], float]:
    """Validation errors per problem with some weights, this rank's parts, and the seconds that they took."""
    started = time.perf_counter()
    with replica.averaged(weights):
        errors = _validate(replica.model, validation, replica.ranks)
    return errors, time.perf_counter() - started


@torch.no_grad()
def _validate(model: nn.Module, validation: Validation, ranks: Ranks) -> dict[str, float]:
    """Mean error per problem over all ranks' shares, the same on every rank; not finite where one of them is."""
    model.eval()
    shares = validation.errors(model)
    model.train()
    sums = torch.tensor(
        [
            [errors.double().sum().item(), len(errors), len(errors) - errors.isfinite().sum().item()]
            for errors in shares.values()
        ],
        dtype=torch.float64,
    )
    sums = ranks.sum(sums)
    for problem, (_, count, diverged) in zip(shares, sums.tolist(), strict=True):
        if diverged:
            log.warning("%s: %d of %d on the validation split are not finite", problem, diverged, count)
    return dict(zip(shares, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))


def _averaged(latest: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Mean over problems of what their newest batches gave, and each by itself where there are several."""
    values = {
        problem: {name: value.item() for name, value in logged.items()} for problem, logged in latest.items()
    }
    names = dict.fromkeys(name for terms in values.values() for name in terms)
    record = {}
    for name in names:
        present = {problem: terms[name] for problem, terms in values.items() if name in terms}
        record |= _named(name, present)
    return record


def _named(name: str, values: dict[str, float]) -> dict[str, float]:
    """The mean under a name, and "name/problem" for each of several problems."""
    mean = {name: sum(values.values()) / len(values)}
    if len(values) == 1:
        return mean
    return mean | {f"{name}/{problem}": value for problem, value in values.items()}
