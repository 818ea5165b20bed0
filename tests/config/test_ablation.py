"""Changes of a configuration by name: all of them validated before anything is trained."""

from pathlib import Path

import pytest
from command_line import TINY

from ups.config import load_configuration
from ups.config.ablation import load_variants
from ups.errors import ConfigurationError


def write(tmp_path, text):
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    return path


def test_every_change_is_the_configuration_but_for_its_keys(tmp_path):
    changes = write(
        tmp_path,
        "longer rollouts:\n  training.operator.rollout_steps: 3\nrate: {training.operator.learning_rate: 4e-3}\n",
    )
    variants = load_variants(TINY, changes, {"seed": 7})
    assert list(variants) == ["longer rollouts", "rate"]
    assert variants["longer rollouts"] == load_configuration(
        TINY, {"seed": 7, "training.operator.rollout_steps": 3}
    )
    assert variants["rate"].training.operator.learning_rate == 4e-3
    assert variants["rate"].seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: {data.nu: 0.1}",
            r"changes.yaml: a: data.nu may not change.*\n.*change keys of loading, model, seed, training",
        ),
        ("a: {evaluation.members: 4}", "evaluation.members may not change"),
        ("operator: {seed: 3}", "changes.yaml: operator: is the name of another row"),
        (
            "a: {training.operator.residual_fraction: 0.4}",
            r"changes.yaml: a: training.operator.residual_fraction may not change",
        ),
        (
            "a: {training.operator: {steps: 60, batch_size: 8, residual_fraction: 0.4}}",
            r"changes.yaml: a: training.operator.residual_fraction may not change",
        ),
        ("a: 3", r"changes.yaml: a: must map dotted keys to values\n.*rollout_steps: 4"),
        ("a: {}", "must map dotted keys"),
        (
            "a: {training.operator.rolout_steps: 4}",
            r"(?s)changes.yaml: a: .*unknown key; did you mean 'rollout_steps'",
        ),
        ("", "is empty"),
        ("a: {b", "is not valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_file_and_change(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message):
        load_variants(TINY, write(tmp_path, text))


def test_the_ablations_that_come_along_are_valid():
    configs = Path(__file__).parents[2] / "configs"
    for changes in (configs / "ablations").iterdir():
        assert len(load_variants(configs / changes.name, changes)) > 1
