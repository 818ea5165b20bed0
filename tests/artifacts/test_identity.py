"""Code identity changes with what is computed, and with nothing else."""

import re
import shutil
from pathlib import Path

import pytest

from ups.artifacts import identity
from ups.pipeline.graph import GRAPH

PACKAGE = Path(identity.__file__).resolve().parent.parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the library's sources that identities are taken of."""
    copy = tmp_path / "ups"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_PACKAGE", copy)
    identity.code_identity.cache_clear()
    yield copy
    identity.code_identity.cache_clear()


def identities() -> dict[str, str]:
    identity.code_identity.cache_clear()
    return {name: identity.code_identity(stage.module) for name, stage in GRAPH.items()}


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{pattern} is not in {path}"
    path.write_text(text)


def test_stages_differ(package):
    assert len(set(identities().values())) == len(GRAPH)


def test_comments_docstrings_and_layout_do_not_count(package):
    before = identities()
    for path in package.rglob("*.py"):
        text = path.read_text()
        edited = "# a new first line\n" + text.replace('"""', '"""Edited. ', 1) + "\n\n\n# the end\n"
        path.write_text(edited)
    (package / "losses" / "relative.py").write_text(
        (package / "losses" / "relative.py").read_text() + '\n"""A string that stands alone."""\n'
    )
    assert identities() == before


def test_a_loss_changes_who_uses_it(package):
    before = identities()
    edit(package / "losses" / "relative.py", r"\ndef ", "\nEXTRA = 1\n\n\ndef ")
    changed = {name for name, value in identities().items() if value != before[name]}
    assert changed == {"autoencoder", "operator", "evaluate"}


def test_a_solver_changes_the_data_and_what_is_solved_outside_their_range(package):
    before = identities()
    edit(package / "physics" / "advection.py", r"_BLOCK_VALUES = 4_194_304", "_BLOCK_VALUES = 4096")
    changed = {name for name, value in identities().items() if value != before[name]}
    assert changed == {"download", "evaluate"}


def test_how_a_run_is_asked_for_does_not_count(package):
    before = identities()
    for name in (
        "config/schema.py",
        "artifacts/store.py",
        "errors.py",
        "commands/main.py",
        "pipeline/run.py",
    ):
        (package / name).write_text((package / name).read_text() + "\nEXTRA = 1\n")
    assert identities() == before


def test_library_versions_count(package, monkeypatch):
    before = identities()
    real = identity.version
    monkeypatch.setattr(identity, "version", lambda name: "0.0" if name == "numpy" else real(name))
    after = identities()
    assert all(after[name] != before[name] for name in GRAPH)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import ups.a.b", {"ups.a.b"}),
        ("from ups.a import b, c", {"ups.a", "ups.a.b", "ups.a.c"}),
        ("def f():\n    from ups.a import b", {"ups.a", "ups.a.b"}),
        ("from . import c", {"ups.p", "ups.p.c"}),
        ("from .q import c", {"ups.p.q", "ups.p.q.c"}),
        ("from ..a import c", {"ups.a", "ups.a.c"}),
        ("import numpy, upset", set()),
    ],
)
def test_imports_are_found_in_every_form(line, expected):
    import ast

    found = identity._imports(ast.parse(line), "ups.p.m", is_package=False)
    assert set(found) == expected


def test_imports_of_a_package_are_relative_to_itself():
    import ast

    assert set(identity._imports(ast.parse("from .q import c"), "ups.p", is_package=True)) == {
        "ups.p.q",
        "ups.p.q.c",
    }
