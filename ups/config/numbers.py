"""The one YAML reader of the project, in which 3e-4 is a float.

PyYAML follows YAML 1.1, where a float needs a dot and a signed exponent: it reads `3e-4` and `1e4` as
strings, `0100` as 64, `1:30` as 90 and `2024-01-01` as a date. Here the rules for numbers are those of YAML
1.2's core schema. Duplicate keys, which YAML forbids and PyYAML accepts, are errors. Only plain data can
come out: this is a `SafeLoader`.

Rejected: ruamel.yaml 0.19 (tried: YAML 1.2, merge keys, duplicate keys with their lines). It would not take PyYAML's
place but stand beside it: files are written with PyYAML, and ruamel.yaml's writer gives no text, only streams. Dates are
still dates there, a malformed one and a number of too many digits raise a bare ValueError without a line, a list as a
key becomes a tuple, and an anchor given twice is a warning: the loader below would stay, in another dialect.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_FLOAT = re.compile(
    r"^[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_INTEGER = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp")}


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *anchor`, which the parent class resolves
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError:  # Python refuses to read an integer of more than 4300 digits
            raise yaml.constructor.ConstructorError(
                None, None, "the number has too many digits", node.start_mark
            ) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _REPLACED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str) -> Any:
    """Parse YAML text to plain Python data.

    Raises:
        yaml.YAMLError: the text is not YAML, has a duplicate key, or asks for a Python object.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with another float rule
    except RecursionError:
        raise yaml.YAMLError("sections are nested too deeply") from None
