"""The documents of the checkout, and the commands that they give."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

CHECKOUT = Path(__file__).resolve().parents[2]
TUTORIAL = CHECKOUT / "docs" / "tutorial.md"
GENERATED = CHECKOUT / "docs" / "reference" / "generated"
DOCUMENTS = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *sorted((CHECKOUT / "deployments").glob("**/*.md")),
    *sorted(path for path in (CHECKOUT / "docs").glob("**/*.md") if path.parent != GENERATED),
]
SHELL = {"sh", "bash", "shell", "console"}
PROGRAMS = {
    "ups",
    ".venv/bin/ups",
    "python",
    "make",
    "prefect",
    "pip",
    "wandb",
    "export",
    "bash",
    "git",
    "vastai",
}
"""By these an indented block is known as one of commands, and text in backticks as one."""


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a document; line: of its first line of text, from 1."""

    file: str
    line: int
    language: str
    text: str

    @property
    def is_shell(self) -> bool:
        if self.language:
            return self.language in SHELL
        first = next((line for line in self.text.splitlines() if line.strip()), "")
        return first.split()[0] in PROGRAMS if first else False


@dataclass(frozen=True)
class Command:
    """One command of a document; inline: it stands in backticks within a sentence or a table."""

    file: str
    line: int
    text: str
    inline: bool

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text())


def blocks(path: Path) -> Iterator[Block]:
    """All blocks of a document."""
    name = str(path.relative_to(CHECKOUT))
    for token in _nested(tokens(path)):
        if token.type in {"fence", "code_block"} and token.map is not None:
            line = token.map[0] + (2 if token.type == "fence" else 1)
            yield Block(name, line, token.info.strip(), token.content)


def commands(path: Path) -> list[Command]:
    """All commands of a document, in its order."""
    found = [
        Command(block.file, block.line + line, text, inline=False)
        for block in blocks(path)
        if block.is_shell
        for line, text in split(block.text)
    ]
    name = str(path.relative_to(CHECKOUT))
    for token in _nested(tokens(path)):
        found.extend(
            Command(name, token.map[0] + 1, part.content, inline=True)
            for part in token.children or []
            if part.type == "code_inline" and _looks_like_a_command(part.content) and token.map is not None
        )
    return sorted(found, key=lambda command: command.line)


def split(text: str) -> Iterator[tuple[int, str]]:
    """Commands of a shell block with the numbers of their lines, from 0; they may go over several lines."""
    begun, start = "", 0
    for number, line in enumerate(text.splitlines()):
        if not begun and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start if begun else number
        begun += line + "\n"
        if not line.endswith("\\") and _is_whole(begun):
            yield start, begun.strip().removeprefix("$ ")
            begun = ""
    assert not begun, f"a command without end: {begun!r}"


def _is_whole(text: str) -> bool:
    """Whether no quote and no document of a shell (<<) is open."""
    here = re.search(r"<<-?\s*['\"]?(\w+)['\"]?", text)
    if here is not None:
        return text.rstrip().endswith(f"\n{here[1]}")
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def _looks_like_a_command(text: str) -> bool:
    words = text.split()
    return len(words) > 1 and words[0] in PROGRAMS - {"export", "git"}


def _nested(found: list[Token]) -> Iterator[Token]:
    """Tokens with the line of the innermost one around them that has one: cells of tables have none."""
    place = None
    for token in found:
        place = token.map or place
        token.map = token.map or place
        yield token
