"""Every combination of how trainings run is possible, or refused by a message that names two keys and the way out."""

import re
from itertools import islice, product
from pathlib import Path
from typing import Any, get_args

import pytest

from ups.config import load_configuration
from ups.config.schema import Configuration, Execution
from ups.config.training import OPTIMIZERS, SCHEDULES
from ups.errors import ConfigurationError

TINY = Path(__file__).parents[2] / "configs" / "burgers_tiny.yaml"


def words(key: str) -> list[Any]:
    """Of a union of words in `execution`, whatever members it has."""
    return list(get_args(Execution.model_fields[key].annotation))


UNIONS: dict[str, list[Any]] = {
    "execution.processes": [1, 2],
    **{
        f"execution.{key}": words(key)
        for key in ("device", "precision", "compile", "cuda_graphs", "data_parallel")
    },
    "execution.activation_checkpointing": [0, "products"],
    "training.operator.optimizer": [{"kind": kind} for kind in OPTIMIZERS],
    "training.operator.schedule": [{"kind": kind} for kind in SCHEDULES],
    "training.operator.accumulation": [1, 8],
    "training.operator.joint": [None, {}],
}
BASE = load_configuration(TINY, {"model.operator.conserve": False}).model_dump(mode="json")


def configured(values: dict[str, Any]) -> str | None:
    """What is wrong with the tiny configuration under these values; None: nothing."""
    content = {**BASE, "execution": dict(BASE["execution"]), "training": dict(BASE["training"])}
    content["training"]["operator"] = dict(content["training"]["operator"])
    for dotted, value in values.items():
        section, *middle, key = dotted.split(".")
        place = content[section]
        for name in middle:
            place = place[name]
        place[key] = value
    try:
        Configuration.model_validate(content)
    except ValueError as error:
        return str(error)
    return None


def impossible(values: dict[str, Any]) -> bool:
    """By rules written down a second time, apart from the schema's."""
    joint = values["training.operator.joint"]
    several = values["execution.processes"] > 1
    way, device = values["execution.data_parallel"], values["execution.device"]
    captured = values["execution.cuda_graphs"] is True
    alone = values["training.operator.optimizer"]["kind"] in {"adamw_8bit", "soap"}
    share = BASE["training"]["operator"]["batch_size"] // values["execution.processes"]
    return (
        (way != "all_reduce" and not several)
        or (
            way == "fsdp"
            and (joint is not None or values["execution.compile"] in {True, "max-autotune"} or alone)
        )
        or (captured and (device == "cpu" or several or alone))
        or (values["execution.precision"] == "tf32" and device == "cpu")
        or share % values["training.operator.accumulation"] != 0
    )


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_every_combination_is_possible_or_refused_with_two_keys_and_a_way_out(every):
    """Or every eleventh: no union has so many members, so all pairs of members are among them."""
    refused, allowed = set(), 0
    for choice in islice(product(*UNIONS.values()), 0, None, every):
        values = dict(zip(UNIONS, choice, strict=True))
        message = configured(values)
        assert (message is not None) == impossible(values), (values, message)
        if message is None:
            allowed += 1
            continue
        named = set(re.findall(r"(?:execution|training)(?:\.\w+)+", message))
        assert len(named) >= 2, message
        assert re.search(r": write |: raise ", message), message
        refused.add(frozenset(named))
    assert allowed > 500
    assert len(refused) >= 7


def test_ranks_of_several_machines_are_several():
    apart = {"execution.nodes": 2, "training.operator.optimizer": {"kind": "adamw"}}
    for way in words("data_parallel"):
        assert configured({"execution.data_parallel": way, **apart}) is None


def test_a_refusal_is_what_a_user_reads():
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(TINY, {"execution.data_parallel": "fsdp"})
    assert caught.value.exit_code == 2
    assert "execution.data_parallel: fsdp is for several processes, and execution.processes is 1" in str(
        caught.value
    )
