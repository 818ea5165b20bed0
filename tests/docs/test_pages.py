"""Pages lead to what exists, say all that they promise, and become a site without a warning."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import CHECKOUT, DOCUMENTS, GENERATED, blocks, tokens
from generate import PAGES
from workplace import Followed

from ups.commands.validate import schema
from ups.metric_labels import METRICS

PATH = re.compile(r"(?:ups|flows|tasks|tests|configs|deployments|docs)/[\w./-]*[\w/]")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_and_files_exist(path: Path):
    missing = []
    for token in tokens(path):
        for part in token.children or []:
            target = part.attrs.get("href") or part.attrs.get("src")
            if target is not None and "://" not in str(target):
                file = (path.parent / str(target).partition("#")[0]).resolve()
                if not _exists(file):
                    missing.append(str(target))
            named = part.content if part.type == "code_inline" and not path.name.startswith("add-") else ""
            # Words in capitals stand for something of the reader's.
            if PATH.fullmatch(named) and not re.search("[A-Z]{3}", named) and not _exists(CHECKOUT / named):
                missing.append(named)
    assert not missing


def _exists(file: Path) -> bool:
    """Now, or when the site is built."""
    return file.exists() or file == GENERATED or (file.parent == GENERATED and file.name in PAGES)


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.is_relative_to(CHECKOUT / "docs")], ids=lambda path: path.stem
)
def test_yaml_and_json_of_blocks_can_be_read(path: Path):
    for block in blocks(path):
        if block.language == "yaml":
            yaml.safe_load(block.text)
        if block.language == "json":
            json.loads(block.text)


def test_every_key_has_its_row():
    page = PAGES["configuration.md"]()
    whole = schema()
    sections = page.split("\n## ")
    for name, section in [("the file", whole), *whole["$defs"].items()]:
        keys = {f"`{key}`" for key in section.get("properties", {})}
        rows = [set(re.findall(r"^\| (`[^`]+`) \|.*\|.*\|.*\|$", text, re.MULTILINE)) for text in sections]
        assert keys in rows, f"{name}: {keys}"
    assert (
        "| `learning_rate` | number, > 0, ≤ 1e+09 | `0.001` | after the warm-up, where it is largest |"
        in page
    )


def test_every_command_and_argument_has_its_row():
    page = PAGES["command-line.md"]()
    assert {"## `ups run`", "### `ups data fetch`", "Run the whole chain without Prefect."} <= set(
        page.splitlines()
    )
    assert re.search(r"^\| `--rows START:STOP` \| only these rows, by byte range", page, re.MULTILINE)
    assert re.search(r"^\| `--until UNTIL` \| last stage to run.*`cache_encode`", page, re.MULTILINE)


def test_every_exit_code_and_metric_has_its_row():
    codes = PAGES["exit-codes.md"]()
    assert "| `2` | `ConfigurationError` |" in codes
    assert re.search(r"^\| `75` \| `Interrupted` \| .* \| yes \|$", codes, re.MULTILINE)
    metrics = PAGES["metrics.md"]()
    assert all(f"| `{metric.name}` | " in metrics for metric in METRICS)
    assert "crps(members: Tensor, truth: Tensor)" in metrics


@pytest.mark.slow
def test_the_tables_of_files_name_every_file_of_a_root(tutorial: Followed):
    """And no other."""
    rows = re.findall(
        r"^\| `((?:runs|artifacts)/[^`]+)` \|",
        (CHECKOUT / "docs/reference/files.md").read_text(),
        re.MULTILINE,
    )
    patterns = {
        row: re.compile(
            re.sub("[A-Z]{3,}", "[^/.][^/]*", re.escape(row)) + (".+" if row.endswith("/") else "")
        )
        for row in rows
    }
    root = tutorial[0].directory
    files = {
        str(path.relative_to(root))
        for top in ("runs", "artifacts")
        for path in (root / top).rglob("*")
        if path.is_file()
    }
    unnamed = {file for file in files if not any(pattern.fullmatch(file) for pattern in patterns.values())}
    assert not unnamed, "name them in docs/reference/files.md"
    gone = {row for row, pattern in patterns.items() if not any(pattern.fullmatch(file) for file in files)}
    assert not gone - {"artifacts/.work/", "artifacts/.sums.json", "runs/RUN/gates.json"}, (
        "no run has them: docs/reference/files.md is to leave them out"
    )


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """Offline: no page asks another server for anything."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-d", tmp_path / "trees", "docs", tmp_path / "site"],
        cwd=CHECKOUT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=.?https?://[^>]*>", page.read_text())
