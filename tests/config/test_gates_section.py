"""Gates that cannot be passed by any run are refused before there is one."""

import pytest
from command_line import TINY

from ups.config import load_configuration
from ups.errors import ConfigurationError

AT_MOST = {"at_most": 0.1}
MASS = {"model": "operator", "metric": "mass_drift"}


@pytest.mark.parametrize(
    ("key", "gate", "told"),
    [
        ("test", MASS | AT_MOST | {"metric": "mass_drft"}, "gates.test.0.metric: no metric is called 'mass_drft'; did you mean 'mass_drift'?"),
        ("test", MASS | AT_MOST | {"model": "zzz"}, "gates.test.0.model: no model is called 'zzz'; there are persistence,"),
        ("test", MASS | AT_MOST | {"problem": "burgers"}, "gates.test.0.problem: no problem is called 'burgers'; did you mean 'burgers1d'?"),
        ("test", MASS, "gates.test.0: it limits nothing: write at_most or at_least"),
        ("test", MASS | {"at_most": 1, "at_least": 2}, "at_least 2 is above at_most 1, and nothing passes"),
        ("test", MASS | {"at_mots": 1}, "gates.test.0.at_mots: unknown key; did you mean 'at_most'?"),
        ("test", {"model": "operator"} | AT_MOST, "gates.test.0.metric: required key is missing"),
        ("test", MASS | {"at_most": float("nan")}, "gates.test.0.at_most"),
        ("validation", {"stage": "evaluate"} | AT_MOST, "gates.validation.0.stage: no training is called 'evaluate'"),
        ("validation", {"stage": "operator", "problem": "x"} | AT_MOST, "gates.validation.0.problem: no problem is called 'x'"),
    ],
)  # fmt: skip
def test_a_gate_that_nothing_can_pass_is_refused(key, gate, told):
    with pytest.raises(ConfigurationError) as refused:
        load_configuration(TINY, {f"gates.{key}": [gate]})
    assert told in str(refused.value)


def test_models_are_those_of_the_result_table():
    """By their names: `ups.config` does not see what evaluates."""
    for model in (
        "operator",
        "diffusion",
        "consistency_2",
        "operator_dressed_scaled",
        "linear",
        "train_mean",
    ):
        gates = load_configuration(TINY, {"gates.test": [MASS | AT_MOST | {"model": model}]}).gates
        assert gates.test[0].model == model
