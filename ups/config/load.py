"""From a file and overrides to a validated configuration, or to an error that says how to fix it."""

import difflib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ups.config.numbers import parse_yaml
from ups.config.schema import Configuration
from ups.errors import ConfigurationError


def load_configuration(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Configuration:
    """Read, override and validate a configuration file.

    Args:
        path: a YAML file, complete in itself.
        overrides: dotted key to value, e.g. {"training.operator.learning_rate": 3e-4}. String values are
            parsed as YAML, so that "3e-4" is a number here too.

    Raises:
        ConfigurationError: names the file, the field and the fix.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError("no such file", where=str(path), fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path)) from error
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"is not valid YAML: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise ConfigurationError(
            "must be a mapping of keys to values", where=str(path), fix="start from configs/burgers_demo.yaml"
        )
    for key, value in (overrides or {}).items():
        _set(values, key, _parse_value(key, value))
    configuration = validate(values, where=str(path))
    if configuration.data.source == "file" and not Path(configuration.data.path).is_absolute():
        absolute = str((path.parent / configuration.data.path).resolve())
        data = configuration.data.model_copy(update={"path": absolute})
        configuration = configuration.model_copy(update={"data": data})
    return configuration


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `--set a.b=c` assignments.

    Raises:
        ConfigurationError: an assignment has no `=` or no key.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(
                f"{assignment!r} is not an assignment", where="--set", fix="write --set section.key=value"
            )
        overrides[key.strip()] = value
    return overrides


def validate(values: Mapping[str, Any], *, where: str) -> Configuration:
    """Validate plain data against the schema.

    Raises:
        ConfigurationError: lists every problem with its field and fix.
    """
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)]
        raise ConfigurationError(
            "\n  ".join(["configuration is not valid", *problems]), where=where
        ) from None


def _parse_value(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{value!r} is not valid YAML: {error}", where=f"--set {key}") from None


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Assign a dotted key. Whether the key exists is the schema's business, with its suggestions."""
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"{parent!r} is a value, not a section", where=f"--set {key}", fix="check the dotted key"
            )
        section = inner
    section[last] = value


def _describe(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    # A discriminated union adds its tag to the location; the user's file has no such level.
    if location[:1] == ["data"] and len(location) > 1 and location[1] in {"generated", "file"}:
        tag = location.pop(1)
    else:
        tag = None
    field = ".".join(location)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        names = _names_at(location[:-1], tag)
        near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(names))}"
        message = f"unknown key; {hint}"
    elif problem["type"] == "missing":
        message = "required key is missing; add it"
    elif not field:
        return message
    elif problem["type"] != "value_error":
        message = f"{message} (got {problem['input']!r})"
    return f"{field}: {message}"


def _names_at(location: list[str], tag: str | None) -> list[str]:
    """Names of the keys that the schema has at a location."""
    model: type[BaseModel] = Configuration
    for part in location:
        candidates = _models_in(model.model_fields[part].annotation)
        model = next(
            (c for c in candidates if tag is None or tag in typing.get_args(_source(c))), candidates[0]
        )
    return list(model.model_fields)


def _source(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("source")
    return None if field is None else field.annotation


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
