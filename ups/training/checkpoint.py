"""Checkpoints: one safetensors file each, whose name carries its step and checksum.

Everything a step changes is in the file; learning rate, batches and noise are functions of the step. The
file is written aside, flushed and renamed, so a reader sees a whole checkpoint or none, and the newest is
found by looking, never stored. Two are kept: should the newest be damaged, the one before resumes.
"""

import json
import logging
from pathlib import Path

import google_crc32c
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ups.artifacts.files import publish
from ups.errors import IntegrityError, PreflightError
from ups.training.step import TrainingState

log = logging.getLogger(__name__)


def save_checkpoint(directory: Path, state: TrainingState) -> Path:
    """Write a checkpoint of the state, then drop all but the two newest.

    directory: checkpoints of one stage.
    """
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {
        "step": str(state.step),
        "source": json.dumps(state.source.state()),
        "layouts": json.dumps(state.layouts),
    }
    payload = save({name: tensor.contiguous() for name, tensor in _flatten(state).items()}, metadata)
    path = directory / f"step-{state.step:08d}-{google_crc32c.value(payload):08x}.safetensors"
    temporary = directory / ".partial"  # one name: what a killed writer left is written over
    temporary.write_bytes(payload)
    publish(temporary, path)
    # What lies after this one is damaged: the state came from the newest intact one.
    present = sorted(directory.glob("step-*.safetensors"))
    place = present.index(path)
    for other in present[: max(0, place - 1)] + present[place + 1 :]:
        other.unlink()
    return path


def load_checkpoint(
    directory: Path, state: TrainingState, *, layout: dict[str, int], may_change: bool
) -> None:
    """Bring the state to the newest intact checkpoint of a directory; without one it stays at step 0.

    Args:
        layout: what must be equal on resume for the same numbers: {"processes": 2, "threads": 1}.
        may_change: go on with another layout, and note from which step on.

    Raises:
        IntegrityError: checkpoints exist and none is intact, or one does not fit the model.
        PreflightError: the checkpoint was written with another layout, which may not change.
    """
    paths = sorted(directory.glob("step-*.safetensors"), reverse=True)
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
                where=str(directory),
                fix="delete the directory to start this stage anew",
            )
    if not state.layouts or _plain(state.layouts[-1]) != layout:
        state.layouts.append(layout | {"from_step": state.step})


def _plain(noted: dict[str, int]) -> dict[str, int]:
    return {key: value for key, value in noted.items() if key != "from_step"}


def _flatten(state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"ema/{name}": value for name, value in state.ema.weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    for problem, terms in state.latest.items():
        tensors |= {f"latest/{problem}/{term}": value for term, value in terms.items()}
    return {name: value.detach().cpu() for name, value in tensors.items()}


def _restore(path: Path, state: TrainingState, layout: dict[str, int], *, may_change: bool) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise IntegrityError(str(error), where=str(path)) from error
    layouts: list[dict[str, int]] = json.loads(metadata["layouts"])
    before = _plain(layouts[-1])
    if before != layout:
        written, now = (
            ", ".join(f"{value} {key}" for key, value in each.items()) for each in (before, layout)
        )
        if not may_change:
            raise PreflightError(
                f"checkpoint was written with {written}, this run has {now}, and would not give the same numbers",
                where=str(path),
                fix=f"run with {written}, or delete the directory to start this stage anew",
            )
        log.warning("goes on with %s, begun with %s: not bit for bit", now, written)
    state.layouts = layouts
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "latest": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    try:
        state.model.load_state_dict(parts["model"])
        for name, weight in state.ema.weights.items():
            weight.copy_(parts["ema"][name])
    except (KeyError, RuntimeError) as error:
        raise IntegrityError(f"does not fit this model: {error}", where=str(path)) from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = value.clone()
    state.latest = {}
    for name, value in parts["latest"].items():
        problem, _, term = name.partition("/")
        state.latest.setdefault(problem, {})[term] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    state.source.restore(json.loads(metadata["source"]))
    state.step = int(metadata["step"])
