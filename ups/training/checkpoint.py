"""Checkpoints: one safetensors file each, whose name carries its step and checksum.

Everything a step changes is in the file, whole, however many ranks held parts of it; learning rate, batches and noise are functions
of the step. The file is written aside, flushed and renamed, so a reader sees a whole checkpoint or none, and the newest is
found by looking, never stored. Two are kept: should the newest be damaged, the one before resumes.

torch.distributed.checkpoint was rejected: its metadata are a pickle.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import google_crc32c
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ups.artifacts.files import publish
from ups.errors import IntegrityError, PreflightError
from ups.training.best import Best
from ups.training.slots import inner_tensors
from ups.training.step import TrainingState

log = logging.getLogger(__name__)

Layout = Mapping[str, int | str]
"""What must be equal on resume for the same numbers: {"processes": 2, "threads": 1, "data_parallel": "ddp"}."""


class Checkpoints:
    """Of one training, in a directory of its own; a context that is left when the last one is on disk.

    They are written by a thread of the first rank while the training goes on with its next steps.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
            log.exception("the last checkpoint was not written")
        finally:
            self._writer.shutdown()

    def wait(self) -> None:
        """Until the last one is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def save(self, state: TrainingState) -> None:
        """Copy the state, a collective call, and have it written, after which all but the two newest are removed.

        Raises:
            OSError: the one before could not be written.
        """
        first = state.replica.ranks.is_first
        if first:
            self.wait()  # one copy in memory, and no more
        # One tensor after the other is whole on its device: all at once would not fit where ranks share them out.
        own = {
            name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
            for name, value in _whole_tensors(state)
            if first
        }
        if not first:
            return
        metadata = {
            "step": str(state.step),
            "source": json.dumps(state.source.state()),
            "layouts": json.dumps(state.layouts),
            "best": json.dumps(state.best.numbers()),
        }
        self._last = self._writer.submit(self._write, own, metadata, state.step)

    def _write(self, tensors: dict[str, Tensor], metadata: dict[str, str], step: int) -> None:
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True)
        payload = save(tensors, metadata)
        path = directory / f"step-{step:08d}-{google_crc32c.value(payload):08x}.safetensors"
        temporary = directory / ".partial"  # one name: what a killed writer left is written over
        temporary.write_bytes(payload)
        publish(temporary, path)
        # What lies after this one is damaged: the state came from the newest intact one.
        present = sorted(directory.glob("step-*.safetensors"))
        place = present.index(path)
        for other in present[: max(0, place - 1)] + present[place + 1 :]:
            other.unlink()

    def load(self, state: TrainingState, layout: Layout, *, may_change: bool) -> None:
        """Bring the state to the newest intact checkpoint; without one it stays at step 0. For every rank.

        may_change: go on with another layout, and note from which step on.

        Raises:
            IntegrityError: checkpoints exist and none is intact, or one does not fit the model.
            PreflightError: the checkpoint was written with another layout, which may not change.
        """
        paths = sorted(self._directory.glob("step-*.safetensors"), reverse=True)
        for path in paths:
            if f"{google_crc32c.value(path.read_bytes()):08x}" != path.stem.rpartition("-")[2]:
                log.warning("checkpoint %s is damaged; trying the one before", path.name)
                continue
            _restore(path, state, layout, may_change=may_change)
            break
        else:
            if paths:
                raise IntegrityError(
                    "every checkpoint is damaged",
                    where=str(self._directory),
                    fix="delete the directory to start this stage anew",
                )
        if not state.layouts or _plain(state.layouts[-1]) != layout:
            state.layouts.append({**layout, "from_step": state.step})


def _plain(noted: Layout) -> dict[str, int | str]:
    return {key: value for key, value in noted.items() if key != "from_step"}


def _whole_tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """All tensors with their names, each made whole when it is asked for; a collective call."""
    replica = state.replica
    for name, value in replica.whole_tensors():
        yield f"model/{name}", value
    for kind, weights in (("ema", state.ema.weights), ("best", state.best.weights)):
        for name, value in weights.items():
            yield f"{kind}/{name}", replica.whole(replica.parameters[name], value)
    for index, part in enumerate(_in_order(state.optimizer)):
        for slot, value in state.optimizer.state[part].items():
            for name, tensor in inner_tensors(value).items():
                # What is as large as the part belongs to it; the rest, as a number of steps, is the same on all ranks.
                whole = replica.whole(part, tensor) if tensor.shape == part.shape else tensor
                yield f"optimizer/{index}/{slot}{name}", whole
    for problem, terms in state.latest.items():
        for term, value in terms.items():
            yield f"latest/{problem}/{term}", value
    if state.loss_scale is not None:
        for name, value in state.loss_scale.state.items():
            yield f"loss_scale/{name}", value


def _in_order(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Its parameters, as its state dictionary numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _restore(path: Path, state: TrainingState, layout: Layout, *, may_change: bool) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise IntegrityError(str(error), where=str(path)) from error
    layouts: list[dict[str, int | str]] = json.loads(metadata["layouts"])
    before = _plain(layouts[-1])
    different = [key for key in layout if before[key] != layout[key]]
    if different:
        written, now = (", ".join(f"{key}: {each[key]}" for key in different) for each in (before, layout))
        if not may_change:
            raise PreflightError(
                f"checkpoint was written with {written}, this run has {now} (processes: on all machines together), and would not give "
                "the same numbers",
                where=str(path),
                fix="run with execution.allow_layout_change: true, or delete the directory to start this stage anew",
            )
        log.warning("goes on with %s, begun with %s: not bit for bit", now, written)
    state.layouts = layouts
    kinds = ("model", "ema", "best", "optimizer", "latest", "loss_scale")
    parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    replica = state.replica
    device = replica.ranks.device
    _make_slots(state.optimizer)
    try:
        replica.load_state_dict(parts["model"])
        _fill_slots(state, parts["optimizer"])
        for name, part in replica.parameters.items():
            state.ema.weights[name].copy_(replica.part(part, parts["ema"][name].to(device)))
        state.best = Best(state.best.keeps, **json.loads(metadata["best"]))
        for name, value in parts["best"].items():
            state.best.weights[name] = replica.part(replica.parameters[name], value.to(device)).clone()
        for name, value in parts["loss_scale"].items():
            assert state.loss_scale is not None
            state.loss_scale.state[name].copy_(value)
    except (KeyError, IndexError, RuntimeError) as error:
        raise IntegrityError(f"does not fit this model: {error}", where=str(path)) from error
    state.latest = {}
    for name, value in parts["latest"].items():
        problem, _, term = name.partition("/")
        state.latest.setdefault(problem, {})[term] = value
    state.source.restore(json.loads(metadata["source"]))
    state.step = int(metadata["step"])


def _make_slots(optimizer: torch.optim.Optimizer) -> None:
    """By a step without gradients and learning rate: each slot in its own format, which `load_state_dict` would replace by
    that of the file."""
    for part in _in_order(optimizer):
        part.grad = torch.zeros_like(part)
    for group in optimizer.param_groups:
        group["lr"].zero_()  # the next step sets it
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _fill_slots(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    """From tensors by "number of the parameter/slot"."""
    replica, parameters = state.replica, _in_order(state.optimizer)
    shapes = {id(part): replica.model.get_parameter(name).shape for name, part in replica.parameters.items()}
    filled: set[int] = set()
    for name, value in tensors.items():
        index, _, slot = name.partition("/")
        part = parameters[int(index)]
        own = replica.part(part, value.to(part.device)) if value.shape == shapes[id(part)] else value
        slot, colon, inner = slot.partition(":")
        inner_tensors(state.optimizer.state[part][slot])[colon + inner].copy_(own)
        filled.add(int(index))
    for index, part in enumerate(parameters):
        if index not in filled:  # of a problem whose turn it has not been
            state.optimizer.state.pop(part, None)
