"""The page of all commands, from their argument parsers."""

import argparse
from collections.abc import Iterator

from generate.table import literal, table
from ups.commands.main import command_line

WIDTH = 100  # characters of a line of usage


def page() -> str:
    """Every command with its usage and its arguments."""
    parser = command_line()
    return "\n".join(
        [
            "# Command line",
            "",
            "Generated from the argument parsers: `ups --help` and `ups COMMAND --help` say the same.",
            "[Exit codes](exit-codes.md) have a page of their own.",
            "",
            *_sections(parser, 2),
        ]
    )


# argparse tells its arguments by private names only; that they are there, a test says.
def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of the next word, by that word."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    for command in subcommands(parser).values():
        yield from (
            f"{'#' * level} `{command.prog}`",
            "",
            literal(command.description or _help(parser, command)),
            "",
        )
        if not subcommands(command):
            rows = [row for action in command._actions if (row := _row(action))]
            yield from ("```text", _usage(command), "```", "", table(("argument", "meaning"), rows))
        yield from (literal(command.epilog or ""), "", *_sections(command, level + 1))


def _help(parser: argparse.ArgumentParser, command: argparse.ArgumentParser) -> str:
    """The line that a command has in the list of its parent."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for line in action._choices_actions:
                if line.dest == command.prog.split()[-1]:
                    text = line.help or ""
                    return f"{text[:1].upper()}{text[1:]}."
    return ""


def _usage(command: argparse.ArgumentParser) -> str:
    command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=WIDTH)
    return command.format_usage().removeprefix("usage: ").rstrip().replace("\n" + " " * len("usage: "), "\n")


def _row(action: argparse.Action) -> tuple[str, str] | None:
    if isinstance(action, argparse._HelpAction):
        return None
    formatter = argparse.HelpFormatter("")
    name, told = (
        action.metavar or action.dest.upper(),
        literal((action.help and formatter._expand_help(action)) or ""),
    )
    value = formatter._format_args(action, name) if action.choices is None else str(name)
    if action.choices and action.metavar is None:
        told = "; ".join(filter(None, (told, ", ".join(f"`{choice}`" for choice in action.choices))))
    words = (", ".join(action.option_strings), "" if action.nargs == 0 else value)
    return f"`{' '.join(filter(None, words))}`", told
