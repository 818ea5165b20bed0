"""From a file and overrides to a validated configuration, or to an error that says how to fix it."""

import difflib
import reprlib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ups.config.numbers import parse_yaml
from ups.config.schema import Configuration
from ups.errors import ConfigurationError

_START = "start from a file in configs/"


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
    except UnicodeDecodeError:
        raise ConfigurationError("is not a text file", where=str(path), fix=_START) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot be read: {reason}", where=str(path), fix="check the path") from None
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise _yaml_error(error, text, where=str(path)) from None
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds a {type(values).__name__}"
        raise ConfigurationError(f"{what}; it must map keys to values", where=str(path), fix=_START)
    for key, value in (overrides or {}).items():
        _set(values, key, _parse_value(key, value))
    where = f"{path} with --set {', '.join(overrides)}" if overrides else str(path)
    configuration = validate(values, where=where)
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
        raise _yaml_error(error, value, where=f"--set {key}") from None


def _yaml_error(error: yaml.YAMLError, text: str, *, where: str) -> ConfigurationError:
    problem, fix = str(error), None
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        # "while scanning ..." is the parser's business; other contexts say what the problem is about.
        about = f"{error.context}, " if error.context and not error.context.startswith("while") else ""
        problem = f"{about}{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
        line = text.splitlines()[mark.line : mark.line + 1]
        if line and "\t" in line[0]:
            fix = "indent with spaces, not with tabs"
    elif isinstance(error, yaml.reader.ReaderError):
        problem = "it holds characters that text does not"
    return ConfigurationError(f"is not valid YAML: {problem}", where=where, fix=fix)


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Assign a dotted key. Whether the key exists is the schema's business, with its suggestions."""
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        inner = section.get(parent, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"{parent!r} is a value, not a section", where=f"--set {key}", fix="check the dotted key"
            )
        # A copy: an anchor of the file, or the caller's own mapping, may be in other places too.
        section[parent] = inner = dict(inner)
        section = inner
    section[last] = value


def _describe(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    # A discriminated union adds its tag to the location; the user's file has no such level.
    if location[:1] == ["data"] and len(location) > 1 and location[1] in {"generated", "file"}:
        tag = location.pop(1)
    else:
        tag = None
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "must")
    match problem["type"]:
        case "extra_forbidden":
            names = _names_at(location[:-1], tag)
            near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(names))}"
            message = f"unknown key; {hint}"
        case "missing":
            message = "required key is missing; add it"
        case "invalid_key":
            message = "a key must be a word"
            location = [part for part in location if part != "[key]"]
        case "union_tag_not_found":
            location.append(problem["ctx"]["discriminator"].strip("'"))
            message = "required key is missing; add it"
        case "union_tag_invalid":
            location.append(problem["ctx"]["discriminator"].strip("'"))
            message = f"must be one of {problem['ctx']['expected_tags']} (got {_shown(problem['input'].get('source'))})"
        case "model_type" | "model_attributes_type":
            message = f"must be a section with keys (got {_shown(problem['input'])})"
        case "string_type":
            message = f"must be text (got {_shown(problem['input'])}); put it in quotes"
        case "value_error":
            pass
        case _:
            message = f"{message} (got {_shown(problem['input'])})"
    return f"{'.'.join(location)}: {message}" if location else message


def _shown(value: Any) -> str:
    """A value as its file would have it, and not much of it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)


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
