"""The one YAML reader of the project, in which 3e-4 is a float.

PyYAML follows YAML 1.1, where a float needs a dot and a signed exponent: it reads `3e-4` and `1e4` as
strings. Here the float rule is that of YAML 1.2's core schema. Duplicate keys, which YAML forbids and
PyYAML accepts, are errors. Only plain data can come out: this is a `SafeLoader`.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_FLOAT = re.compile(
    r"^[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:float"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str) -> Any:
    """Parse YAML text to plain Python data.

    Raises:
        yaml.YAMLError: the text is not YAML, has a duplicate key, or asks for a Python object.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with another float rule
