"""Pages that follow from the code: written when the site is built, never committed."""

from collections.abc import Callable

from generate import command_line, configuration, exit_codes, metrics

PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line.page,
    "configuration.md": configuration.page,
    "configuration.schema.json": configuration.schema_file,
    "exit-codes.md": exit_codes.page,
    "metrics.md": metrics.page,
}
"""File names below docs/reference/generated/, and what writes their text."""
