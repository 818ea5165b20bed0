"""Code identity changes with what is computed, and with nothing else."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from command_line import CONFIGS, TINY

from ups.artifacts import identity
from ups.config import load_configuration
from ups.config.schema import STAGES

CONFIGURATIONS = {
    "burgers": load_configuration(TINY),
    "outside": load_configuration(TINY, {"evaluation.outside": {"trajectories": 2}}),
    "mix": load_configuration(CONFIGS / "mix_tiny.yaml"),
}
PACKAGE = Path(identity.__file__).resolve().parent.parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the library's sources that identities are taken of."""
    copy = tmp_path / "ups"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    identity.code_identity.cache_clear()
    identity._read.cache_clear()


def identities(configuration: str = "burgers") -> dict[str, identity.Code]:
    forget()
    chosen = CONFIGURATIONS[configuration]
    return {name: identity.code_identity(*stage.modules(chosen)) for name, stage in STAGES.items()}


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, identity.Code]]:
    """Identities of the library itself, by configuration: they do not depend on where its sources lie."""
    return {configuration: identities(configuration) for configuration in CONFIGURATIONS}


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{pattern} is not in {path}"
    path.write_text(text)


def test_stages_differ(package):
    assert len({str(code) for code in identities().values()}) == len(STAGES)


def test_comments_docstrings_and_layout_do_not_count(package, before):
    for path in package.rglob("*.py"):
        text = path.read_text()
        edited = "# a new first line\n" + text.replace('"""', '"""Edited. ', 1) + "\n\n\n# the end\n"
        path.write_text(edited)
    (package / "losses" / "relative.py").write_text(
        (package / "losses" / "relative.py").read_text() + '\n"""A string that stands alone."""\n'
    )
    assert identities() == before["burgers"]


def test_a_loss_changes_who_uses_it(package, before):
    edit(package / "losses" / "relative.py", r"\ndef ", "\nEXTRA = 1\n\n\ndef ")
    changed = {name for name, value in identities().items() if value != before["burgers"][name]}
    assert changed == {"autoencoder", "operator", "evaluate"}


BEHIND = ["operator", "diffusion", "consistency", "evaluate"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("autoencoder", {"autoencoder", "cache_encode", *BEHIND}),
        ("codec", {"autoencoder", "cache_encode", *BEHIND}),
        ("operators/operator", {*BEHIND}),
        ("residual", {"diffusion", "consistency", "evaluate"}),
    ],
)
def test_a_network_counts_for_the_stages_that_build_it_and_those_behind(package, before, file, expected):
    """Models are found by their kind: each stage imports those that it builds, or they would not count."""
    edit(package / "models" / f"{file}.py", r"\n(import \w+|from \S+ import)", r"\nEXTRA = 1\n\1")
    assert {name for name, value in identities().items() if value != before["burgers"][name]} == expected


@pytest.mark.parametrize(
    ("solver", "constant", "configuration", "expected"),
    [
        ("burgers", "_BLOCK_CELLS_CPU", "burgers", {"download"}),
        # Which solves some trajectories itself.
        ("burgers", "_BLOCK_CELLS_CPU", "outside", {"download", "evaluate"}),
        ("advection", "_BLOCK_VALUES", "outside", set()),
        ("advection", "_BLOCK_VALUES", "mix", {"download"}),
        ("darcy", "_BLOCK_CELLS_CPU", "mix", {"download"}),
    ],
)
def test_a_solver_changes_the_data_that_it_makes(package, before, solver, constant, configuration, expected):
    edit(package / "physics" / f"{solver}.py", rf"\n{constant} = ", f"\nEXTRA = 1\n{constant} = ")
    after = identities(configuration)
    changed = {name for name, value in after.items() if value != before[configuration][name]}
    assert changed == expected


def test_what_fetches_counts_where_something_is_fetched(package, before):
    edit(package / "transfer" / "download.py", r"\ndef ", "\nEXTRA = 1\n\n\ndef ")
    assert identities() == before["burgers"]


def test_how_a_run_is_asked_for_does_not_count(package, before):
    for name in (
        "config/schema.py",
        "artifacts/store.py",
        "errors.py",
        "commands/main.py",
        "pipeline/run.py",
    ):
        (package / name).write_text((package / name).read_text() + "\nEXTRA = 1\n")
    assert identities() == before["burgers"]


@pytest.mark.parametrize(
    ("library", "release", "changed"),
    [
        ("numpy", "0.0", set(STAGES)),
        ("zarr", "0.0.0", {"cache_encode"}),
        ("zarr", "{}.999", set()),  # a patch release
    ],
)
def test_versions_count_of_libraries_that_are_imported(
    package, before, monkeypatch, library, release, changed
):
    real = identity.version
    other = release.format(".".join(real(library).split(".")[:2]))
    monkeypatch.setattr(identity, "version", lambda name: other if name == library else real(name))
    assert {name for name, code in identities().items() if code != before["burgers"][name]} == changed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import ups.a.b", {"ups.a.b"}),
        ("from ups.a import b, c", {"ups.a", "ups.a.b", "ups.a.c"}),
        ("def f():\n    from ups.a import b", {"ups.a", "ups.a.b"}),
        ("from . import c", {"ups.p", "ups.p.c"}),
        ("from .q import c", {"ups.p.q", "ups.p.q.c"}),
        ("from ..a import c", {"ups.a", "ups.a.c"}),
        ("if x:\n    pass\nelse:\n    from ups.a import b", {"ups.a", "ups.a.b"}),
        ("try:\n    pass\nexcept E:\n    import ups.a\nfinally:\n    import ups.b", {"ups.a", "ups.b"}),
        ("match x:\n    case 1:\n        import ups.a", {"ups.a"}),
        ("import numpy, upset", set()),
    ],
)
def test_imports_are_found_in_every_form(line, expected):
    assert imports_of(line, "ups.p.m", is_package=False) == expected


def test_imports_of_a_package_are_relative_to_itself():
    assert imports_of("from .q import c", "ups.p", is_package=True) == {"ups.p.q", "ups.p.q.c"}


def imports_of(source: str, module: str, *, is_package: bool) -> set[str]:
    """Of this library."""
    statements = identity._without_texts(ast.parse(source))
    found = identity._imports(statements, module, is_package=is_package)
    return {name for name in found if name.startswith("ups.")}
