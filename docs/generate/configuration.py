"""The page of configuration keys, from the JSON schema that `ups validate --schema` prints."""

import json
from collections.abc import Iterator
from typing import Any

from generate.table import literal, table
from ups.commands.validate import schema

Schema = dict[str, Any]
_PLAIN = {"integer": "whole number", "number": "number", "string": "text", "null": "`null`"}


def schema_file() -> str:
    """The schema itself, for editors."""
    return json.dumps(schema(), indent=2) + "\n"


def page() -> str:
    """Every section with its keys."""
    whole = schema()
    sections = _sections(whole)
    lines = [
        "# Configuration keys",
        "",
        "Generated from the schema that `ups validate --schema` prints. A configuration is one complete YAML file; every key can be",
        "given on the command line too, `--set training.operator.learning_rate=3e-4`. Unknown keys are errors. A key",
        "without a default must be written.",
        "",
        "`NAME` in a key stands for a name of your own, such as that of a problem in a mix.",
        "",
        "## The file",
        "",
        _keys(whole, whole),
    ]
    for name, places in sections.items():
        section = whole["$defs"][name]
        lines += [
            f"({_anchor(name)})=",
            f"## {_heading(places[0], section)}",
            "",
            literal(section.get("description", "")),
            "",
        ]
        if len(places) > 1:
            lines += [f"The same at {', '.join(f'`{place}`' for place in places[1:])}.", ""]
        lines += [_keys(section, whole)]
    return "\n".join(lines)


def _sections(whole: Schema) -> dict[str, list[str]]:
    """Names of sections, in the order of the file, with the dotted keys where they stand."""
    found: dict[str, list[str]] = {}

    def visit(section: Schema, place: str) -> None:
        for key, value in section.get("properties", {}).items():
            inside(value, f"{place}.{key}".lstrip("."))

    def inside(value: Schema, place: str) -> None:
        if "$ref" in value:
            name = _name(value)
            if place not in found.setdefault(name, []):
                found[name].append(place)
                visit(whole["$defs"][name], place)
        for key in ("oneOf", "anyOf"):
            for choice in value.get(key, []):
                inside(choice, place)
        if isinstance(value.get("additionalProperties"), dict):
            inside(value["additionalProperties"], f"{place}.NAME")
        if "items" in value:
            inside(value["items"], place)

    visit(whole, "")
    return found


def _keys(section: Schema, whole: Schema) -> str:
    required = section.get("required", [])
    rows = [
        (
            f"`{key}`",
            _type(value),
            "" if key in required else _default(value),
            literal(_meaning(value, whole)),
        )
        for key, value in section.get("properties", {}).items()
    ]
    return table(("key", "value", "default", "meaning"), rows) if rows else "No keys.\n"


def _meaning(value: Schema, whole: Schema) -> str:
    """Its own words, else those of the section that it is."""
    described = value if "description" in value else whole["$defs"].get(_name(value), {})
    return described.get("description", "")


def _type(value: Schema) -> str:
    """What may be written, with its limits."""
    if "$ref" in value:
        name = _name(value)
        return f"[{_label(name)}](#{_anchor(name)})"
    choices = [*value.get("oneOf", []), *value.get("anyOf", [])]
    if choices:
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    if "const" in value:
        return _code(value["const"])
    if "enum" in value:
        return ", ".join(map(_code, value["enum"]))
    kind = value.get("type")
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "array":
        return _array(value)
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"by NAME: {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return _PLAIN[str(kind)] + "".join(_limits(value))


def _array(value: Schema) -> str:
    if "prefixItems" in value:
        return "[" + ", ".join(_type(item) for item in value["prefixItems"]) + "]"
    least, most = value.get("minItems"), value.get("maxItems")
    count = f", {least or 0} to {most}" if most else f", at least {least}" if least else ""
    return f"list of {_type(value.get('items', {'type': 'string'}))}{count}"


def _limits(value: Schema) -> Iterator[str]:
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "multipleOf": "multiple of",
    }
    for limit, sign in signs.items():
        if limit in value:
            yield f", {sign} {value[limit]:.4g}"
    if "pattern" in value:
        yield f" like `{value['pattern']}`"


def _default(value: Schema) -> str:
    if "default" not in value:
        return ""
    default = value["default"]
    if isinstance(default, dict):
        chosen = default.get("kind")  # the rest are that section's own defaults
        return _code(chosen) if chosen else "see there"
    return _code(default)


def _heading(place: str, section: Schema) -> str:
    """A dotted key, and the words by which one of several kinds is chosen."""
    chosen = {key: value["const"] for key, value in section.get("properties", {}).items() if "const" in value}
    words = ", ".join(f"{key}: {value}" for key, value in chosen.items())
    return f"`{place}`" + (f" with `{words}`" if words else "")


def _name(value: Schema) -> str:
    """Of the section that a key refers to; empty if it is none."""
    return value.get("$ref", "").rpartition("/")[2]


def _label(name: str) -> str:
    """`FactorizedFourierOperator` in words."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _anchor(name: str) -> str:
    return f"section-{name.lower()}"


def _code(value: Any) -> str:
    return f"`{json.dumps(value).strip(chr(34))}`"
