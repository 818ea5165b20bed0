"""The weights of the best validation are published where that is asked for, and a training may end when it gets no better."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from test_resume_matrix import Cell, Source
from tiny import single_rank
from torch import Tensor, nn
from trainings import training

from ups.artifacts.files import read_records
from ups.config.schema import Execution
from ups.config.training import Training
from ups.runtime.ranks import Ranks
from ups.training.loop import Errors, Validation, train
from ups.training.step import TrainingState

SETTINGS = {"batch_size": 8, "steps": 10, "warmup_steps": 1, "ema_decay": 0.5, "log_every": 4}
ERRORS = [5.0, 3.0, math.nan, 4.0, 3.0, 6.0, 2.0, 9.0, 9.0, 9.0]
"""Of the first validation, and so on; raw weights are validated once more at the end."""


class Scripted:
    """Validations with errors as they are told, and the weights that were seen."""

    def __init__(self, first: int = 0) -> None:
        self.errors, self.seen = list(ERRORS[first:]), list[dict[str, Tensor]]()

    def __call__(self, model: nn.Module) -> Errors:
        self.seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return {"a": torch.tensor([self.errors.pop(0) if self.errors else 100.0])}


def trained(
    work: Path, changes: Mapping[str, Any], ranks: Ranks, *, die_at: int | None = None, first: int = 0
) -> tuple[TrainingState, Scripted]:
    settings = Training.model_validate(SETTINGS | {"validate_every": 1, "checkpoint_every": 3} | changes)
    model, objective = training("operator")
    validation = Scripted(first)
    state = train(
        model,
        objective,
        Source(Cell(name="operator"), ranks, work, die_at),
        Validation("error", validation),
        settings,
        ranks,
        work,
        stage="operator",
        seed=0,
        execution=Execution(threads=1, processes=ranks.world),
    )
    return state, validation


def test_the_weights_of_the_best_validation_are_published(tmp_path):
    state, validation = trained(tmp_path, {"publish": "best"}, single_rank())
    assert (state.best.step, state.best.error) == (7, 2.0)
    assert all(torch.equal(value, validation.seen[6][name]) for name, value in state.published.items())
    last, _ = trained(tmp_path / "last", {}, single_rank())
    assert all(torch.equal(value, last.ema.weights[name]) for name, value in last.published.items())
    assert not torch.equal(*(torch.cat([w.flatten() for w in s.published.values()]) for s in (state, last)))


def test_a_training_that_gets_no_better_ends(tmp_path, caplog):
    """Three validations without a lower error: one that is not finite is not lower, nor one that is as low."""
    state, _ = trained(tmp_path, {"early_stop": 3}, single_rank())
    assert (state.step, state.best.step) == (5, 2)
    assert caplog.messages == ["a: 1 of 1 on the validation split are not finite"]
    records = read_records(tmp_path / "output" / "logs" / "metrics.jsonl")
    assert [record["error"] for record in records if "error" in record][:2] == [5.0, 3.0]
    assert records[-1]["step"] == 5
    assert any("error_raw" in record for record in records)
    again, _ = trained(tmp_path, {"early_stop": 3}, single_rank())
    assert again.step == 5, "it has ended"


def killed(ranks: Ranks, work: str, changes: dict[str, Any], die_at: int) -> None:
    trained(Path(work), changes, ranks, die_at=die_at)


@pytest.mark.parametrize(("early_stop", "ends", "best"), [(3, 5, 2), (5, 10, 7)])
def test_a_killed_training_remembers_its_best(tmp_path, early_stop, ends, best):
    changes = {"early_stop": early_stop, "publish": "best"}
    with pytest.raises(EOFError):
        run_ranks(killed, 1, str(tmp_path), changes, 4)
    state, _ = trained(tmp_path, changes, single_rank(), first=3)
    assert (state.step, state.best.step) == (ends, best)
    whole, _ = trained(tmp_path / "whole", changes, single_rank())
    assert all(torch.equal(value, whole.published[name]) for name, value in state.published.items())


def test_a_warm_up_may_be_a_part_of_the_steps():
    for given, steps in {"5 %": 50, "12.5%": 125, 7: 7}.items():
        assert (
            Training.model_validate({"batch_size": 1, "steps": 1000, "warmup_steps": given}).warmup_steps
            == steps
        )
    for wrong in ("100 %", "-5 %", "five %"):
        with pytest.raises(ValueError, match="warmup_steps"):
            Training.model_validate({"batch_size": 1, "steps": 1000, "warmup_steps": wrong})
