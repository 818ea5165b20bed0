"""Ablations: a configuration with named changes, each of a few keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ups.config.load import load_configuration, read_yaml
from ups.config.schema import Configuration
from ups.errors import ConfigurationError

_FREE = {"model", "training", "loading", "seed"}
"""Sections that a change may touch: all variants see the same data, on the same machine, scored alike."""
_TAKEN = {"operator", "persistence", "spatial_mean", "train_mean", "linear"}
"""Names of rows that every table has."""


def load_variants(
    path: Path, changes: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Configuration]:
    """The configurations that a file of changes makes of another one, by name, in the order of the file.

    Args:
        path: the configuration.
        changes: a YAML file, {name: {dotted key: value}}.
        overrides: of the configuration, before any change.

    Raises:
        ConfigurationError: names the file, the change and the fix.
    """
    named = read_yaml(changes)
    for name, keys in named.items():
        if not isinstance(keys, dict) or not keys:
            raise ConfigurationError(
                "must map dotted keys to values",
                where=f"{changes}: {name}",
                fix="write for example {training.operator.rollout_steps: 4}",
            )
        if name in _TAKEN:
            raise ConfigurationError(
                "is the name of another row", where=f"{changes}: {name}", fix="name the change otherwise"
            )
        foreign = [key for key in keys if str(key).partition(".")[0] not in _FREE]
        if foreign:
            raise ConfigurationError(
                f"{foreign[0]} may not change, for all variants share data and scoring",
                where=f"{changes}: {name}",
                fix=f"change keys of {', '.join(sorted(_FREE))}",
            )
    held_back = load_configuration(path, overrides).training.operator.residual_fraction
    variants = {}
    for name, keys in named.items():
        try:
            variant = load_configuration(path, {**(overrides or {}), **keys})
        except ConfigurationError as error:
            raise ConfigurationError(str(error), where=f"{changes}: {name}") from None
        if variant.training.operator.residual_fraction != held_back:
            raise ConfigurationError(
                "training.operator.residual_fraction may not change, for all variants are fitted to the same trajectories",
                where=f"{changes}: {name}",
                fix=f"write {held_back:g}",
            )
        variants[str(name)] = variant
    return variants
