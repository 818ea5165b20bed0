"""Tables in Markdown."""

import re
from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown, a bar in them is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def literal(text: str) -> str:
    """Text in one line, of which only what stands in backticks is Markdown."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if number % 2 else re.sub(r"([\\*_{}\[\]<>#$~])", r"\\\1", part)
        for number, part in enumerate(parts)
    )
