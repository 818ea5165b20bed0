"""What an artifact's key is computed from, and what counts as the code of a stage.

key = sha256(derivation), derivation = the stage's settings after every auto is resolved, its code, and the content
sums of its inputs

Code is taken over the abstract syntax trees, without docstrings and comments, of the `ups` modules in the static
import closure of the stage, and the versions of the libraries that they import and that make the numbers. Left out of
the closure are `_OUTSIDE`: they decide how a run is asked for, judged and shown, and where bytes lie, not what they are; the values of
all settings are in the derivation anyway.
"""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ups.artifacts.files import canonical_json

Code = dict[str, dict[str, str]]
"""{"modules": {name: sum}, "libraries": {name: version}}."""

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARIES = {"torch": 3, "numpy": 3, "zarr": 2, "torchao": 3}
"""Parts of their versions that count: a patch release of zarr writes the same arrays."""
_OUTSIDE = (
    "ups.config",
    "ups.artifacts",
    "ups.errors",
    "ups.kinds",
    "ups.section",
    "ups.problems.generated",
    "ups.metric_labels",
    "ups.model_labels",
)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of statements, and of parts of them, that hold statements."""
_SUM = 16  # hexadecimal digits: enough to tell versions of a module apart


def digest_of(derivation: Mapping[str, Any]) -> str:
    """sha256 of a derivation, hexadecimal."""
    return hashlib.sha256(canonical_json(derivation)).hexdigest()


@cache
def code_identity(*entries: str) -> Code:
    """The modules and libraries behind some modules of `ups`."""
    modules: dict[str, str] = {}
    libraries: set[str] = set()
    seen: set[str] = set()
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        source = _read(name)
        if source is None and name in entries:
            raise ValueError(f"there is no module {name}")
        if name in seen or source is None:
            continue
        seen.add(name)
        waiting += source.imports
        libraries |= source.libraries
        waiting += [name.rpartition(".")[0]] if "." in name else []
        if source.sum is not None:
            modules[name] = source.sum
    return {
        "modules": dict(sorted(modules.items())),
        "libraries": {
            name: ".".join(version(name).split(".")[:parts])
            for name, parts in _LIBRARIES.items()
            if name in libraries
        },
    }


class _Source(NamedTuple):
    imports: list[str]
    libraries: frozenset[str]
    sum: str | None
    """None of a module that does not count."""


@cache
def _read(name: str) -> _Source | None:
    """What counts of one module; None where there is none of this name."""
    path = _module_path(name)
    if path is None:
        return None
    tree = _parse(path.read_text())
    statements = _without_texts(tree)
    imports = _imports(statements, name, is_package=path.name == "__init__.py")
    own = [imported for imported in imports if imported.split(".")[0] == "ups"]
    libraries = frozenset(imported.split(".")[0] for imported in imports) & _LIBRARIES.keys()
    if name.startswith(_OUTSIDE):
        return _Source(own, libraries, None)
    return _Source(own, libraries, hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:_SUM])


def _parse(source: str) -> ast.Module:
    """CPython 3.11 loses count of its depth if another thread parses meanwhile (python/cpython issue 106905), as some
    library's does under Prefect; the next try goes well."""
    for _ in range(9):
        with suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def _module_path(name: str) -> Path | None:
    base = _PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(statements: Iterable[ast.AST], module: str, *, is_package: bool) -> list[str]:
    names = []
    for node in statements:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[
                    : None if is_package and node.level == 1 else -node.level + is_package
                ]
                base = ".".join([*parents, *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _without_texts(tree: ast.Module) -> list[ast.AST]:
    """Takes strings that stand alone as a statement (docstrings, also of attributes) out of a tree; all statements that are left.

    Rejected: `ast.walk` and a NodeTransformer, which go into expressions too: a third of the time that a key takes.
    """
    statements: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        statements.append(node)
        for field in _BLOCKS:
            block: list[ast.AST] = getattr(node, field, [])
            block[:] = [statement for statement in block if not _is_text(statement)]
            waiting += block
    return statements


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
