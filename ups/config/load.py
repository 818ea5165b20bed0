"""From a file and overrides to a validated configuration, or to an error that says how to fix it."""

import difflib
import reprlib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ups.config.conditioning import SELECTIONS
from ups.config.data import TAGGED, DataFile, Mix
from ups.config.model import ENCODERS, OPERATORS
from ups.config.networks import ONE_FOR_ALL, PER_PROBLEM
from ups.config.numbers import parse_yaml
from ups.config.schema import Configuration
from ups.config.training import OPTIMIZERS, SCHEDULES
from ups.errors import ConfigurationError
from ups.problems import PROBLEMS
from ups.problems.generated import ProblemData

_START = "start from a file in configs/"
_SIMILAR = (
    0.7  # of two keys, one of them a slip: `beta` and `data` have 0.5, `resolution` and `equation` 0.67
)
_SOURCES = ("generated", "file", "pdebench", "mix")


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
    values = read_yaml(path)
    for key, value in (overrides or {}).items():
        _set(values, key, parse_value(key, value))
    where = f"{path} with --set {', '.join(overrides)}" if overrides else str(path)
    configuration = validate(values, where=where)
    return configuration.model_copy(update={"data": _absolute(configuration.data, path.parent)})


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        ConfigurationError: names the file and the fix.
    """
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
    return values


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


def parse_value(key: str, value: Any) -> Any:
    """The value of an override: text is YAML.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        raise _yaml_error(error, value, where=f"--set {key}") from None


def validate(values: Mapping[str, Any], *, where: str) -> Configuration:
    """Validate plain data against the schema.

    Raises:
        ConfigurationError: lists every problem with its field and fix.
    """
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        problems = describe_problems(error)
        raise ConfigurationError(
            "\n  ".join(["configuration is not valid", *problems]), where=where
        ) from None


def _absolute(data: ProblemData | Mix, directory: Path) -> ProblemData | Mix:
    """Data whose file paths start at a directory, not at where somebody stands."""
    if isinstance(data, Mix):
        problems = {name: _absolute(problem, directory) for name, problem in data.problems.items()}
        return data.model_copy(update={"problems": problems})
    if isinstance(data, DataFile):
        return data.model_copy(update={"path": str((directory / data.path).resolve())})
    return data


def describe_problems(
    error: ValidationError, *, inside: tuple[str, ...] = (), root: type[BaseModel] = Configuration
) -> list[str]:
    """What is wrong, one sentence per key, with its fix.

    inside: location of the section whose values were validated alone; keys are called as they stand in it.
    root: what the file holds.
    """
    return [_describe(problem, inside, root) for problem in error.errors(include_url=False)]


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


def _describe(problem: Any, inside: tuple[str, ...], root: type[BaseModel]) -> str:
    # Pydantic's "[key]", and tags of ours: the file has no such levels.
    parts = [part for part in map(str, problem["loc"]) if not part.startswith("[")]
    location, section = _follow([*inside, *parts], root)
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "must")
    match problem["type"]:
        case "extra_forbidden":
            names = list(section.model_fields)
            near = difflib.get_close_matches(location[-1], names, n=1, cutoff=_SIMILAR)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(names))}"
            message = f"unknown key; {hint}"
        case "missing":
            message = "required key is missing; add it"
        case "invalid_key":
            message = "a key must be a word"
        case "union_tag_not_found" | "union_tag_invalid" if not isinstance(problem["input"], dict):
            message = f"must be a section with keys (got {_shown(problem['input'])})"
        case "union_tag_not_found" | "union_tag_invalid" if location[0] != "data":
            kinds = _kinds(location)
            location.append("kind")
            if "kind" in problem["input"]:
                message = f"must be one of {', '.join(kinds)} (got {_shown(problem['input']['kind'])})"
            else:
                message = f"required key is missing; add it: one of {', '.join(kinds)}"
        case "union_tag_not_found":
            sources = _SOURCES[:-1] if location[1:] else _SOURCES  # a mix holds none
            known = problem["input"].get("source") in sources
            key, choices = ("equation", PROBLEMS) if known else ("source", sources)
            location.append(key)
            if key in problem["input"]:
                message = f"must be one of {', '.join(choices)} (got {_shown(problem['input'][key])})"
            else:
                message = f"required key is missing; add it: one of {', '.join(choices)}"
        case "model_type" | "model_attributes_type":
            message = f"must be a section with keys (got {_shown(problem['input'])})"
        case "string_type":
            message = f"must be text (got {_shown(problem['input'])}); put it in quotes"
        case "value_error":
            pass
        case "literal_error":
            choices = message.replace("True", "true").replace("False", "false")
            message = f"{choices} (got {_shown(problem['input'])})"
        case _:
            message = f"{message} (got {_shown(problem['input'])})"
    named = location[len(_follow(list(inside), root)[0]) :]
    return f"{'.'.join(named)}: {message}" if named else message


def _shown(value: Any) -> str:
    """A value as its file would have it, and not much of it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)


def _follow(parts: list[str], root: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """A validation error's location as the user's file has it, and the section that its last key is in.

    A discriminated union adds its tags to the location; the file has no such level.
    """
    section = root
    inner: type[BaseModel] | None = root
    location: list[str] = []
    named = False  # the next part is a name of the user's, whatever it looks like
    kinds: Mapping[str, type[BaseModel]] = {}
    for part in parts:
        if part in kinds:
            inner, kinds = kinds[part], {}
            continue
        if not named and location[:1] == ["data"] and (part in TAGGED or part == "one"):
            inner = TAGGED.get(part, inner)
            continue
        if part in {ONE_FOR_ALL, PER_PROBLEM}:
            named = part == PER_PROBLEM
            continue
        location.append(part)
        kinds = _kinds(location)
        if named:
            named = False
            continue
        section = inner or section
        field = section.model_fields.get(part)
        inner = None if field is None else next(iter(_models_in(field.annotation)), None)
        named = section is Mix and part == "problems"
    return location, section


def _kinds(location: list[str]) -> Mapping[str, type[BaseModel]]:
    """The sections that a key chooses from by its `kind`; none if it does not."""
    if location[:-1] == ["model"]:
        return {"operator": OPERATORS, "encoder": ENCODERS}.get(location[-1], {})
    return {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "selection": SELECTIONS}.get(location[-1], {})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
