"""`ups validate CONFIG`."""

import argparse
import json
from typing import Any

import yaml

from ups.commands.arguments import add_configuration
from ups.config import Configuration, load_configuration
from ups.config.load import parse_overrides
from ups.errors import ConfigurationError

_LIMITS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser, nargs="?")
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of all configurations instead: every key with meaning, limits and default, for "
        "editors that check and complete",
    )


def execute(options: argparse.Namespace) -> None:
    """Print the complete configuration, defaults filled in; or the schema."""
    if options.schema:
        print(json.dumps(schema(), indent=2))
        return
    if options.config is None:
        raise ConfigurationError(
            "is missing", where="CONFIG", fix="name a file of configs/, or give --schema"
        )
    configuration = load_configuration(options.config, parse_overrides(options.assignments))
    print(yaml.safe_dump(configuration.model_dump(mode="json"), sort_keys=False), end="")


def schema() -> dict[str, Any]:
    """The JSON schema of configurations."""
    return _standard(Configuration.model_json_schema())


def _standard(schema: Any) -> Any:
    """With limits by the names of the JSON schema: behind our check for booleans pydantic leaves its own."""
    if isinstance(schema, dict):
        return {_LIMITS.get(key, key): _standard(value) for key, value in schema.items()}
    return [_standard(value) for value in schema] if isinstance(schema, list) else schema
