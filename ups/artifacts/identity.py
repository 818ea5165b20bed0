"""Digests: what a stage's result is a function of.

    digest = sha256(stage, its settings after every auto is resolved, code identity, digests of its inputs)

Code identity is taken over the abstract syntax trees of the `ups` modules in the static import closure of
the stage, without docstrings and comments, and the versions of the libraries that make the numbers. Left
out of the closure are `ups.config`, `ups.artifacts` and `ups.errors`: they decide how a run is asked for
and where bytes lie, not what they are; the values of all settings are in the digest anyway.
"""

import ast
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ups.artifacts.files import canonical_json

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARIES = ("torch", "numpy", "zarr")
_OUTSIDE = ("ups.config", "ups.artifacts", "ups.errors")


def digest_of(recipe: dict[str, Any]) -> str:
    """sha256 of a recipe, hexadecimal."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()


@cache
def code_identity(module: str) -> str:
    """sha256 over the import closure of a module of `ups`, and library versions."""
    closure: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in closure:
            continue
        path = _module_path(name)
        if path is None:
            continue
        tree = ast.parse(path.read_text())
        waiting += _imports(tree, name, is_package=path.name == "__init__.py")
        waiting += [name.rpartition(".")[0]] if "." in name else []
        if not name.startswith(_OUTSIDE):
            closure[name] = hashlib.sha256(ast.dump(_WithoutText().visit(tree)).encode()).hexdigest()
        else:
            closure[name] = ""
    modules = {name: sum_ for name, sum_ in closure.items() if sum_}
    return digest_of({"modules": modules, "libraries": {name: version(name) for name in _LIBRARIES}})


def _module_path(name: str) -> Path | None:
    base = _PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> list[str]:
    names = []
    for node in ast.walk(tree):
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
    return [name for name in names if name == "ups" or name.startswith("ups.")]


class _WithoutText(ast.NodeTransformer):
    """Drops docstrings, also those of attributes: strings that stand alone as a statement."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node
