"""Commands of the documents, by their real parsers; nothing is run."""

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from documents import CHECKOUT, DOCUMENTS, Command, commands
from generate.command_line import subcommands

from ups.commands.arguments import add_configuration
from ups.commands.main import command_line
from ups.config import load_configuration
from ups.config.load import parse_overrides

OPERATORS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "(", ")"}


def given() -> list[Command]:
    """Commands of all documents that have arguments: those that are not only named."""
    found = [command for path in DOCUMENTS for command in commands(path)]
    return [command for command in found if not (command.inline and is_mention(command.text))]


def problem_of(text: str) -> str | None:
    """What is wrong with a command as far as parsers and configurations tell; None: nothing."""
    checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    if checked.returncode:
        return checked.stderr
    for words in programs(text):
        try:
            if problem := _problem(words):
                return problem
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def programs(text: str) -> Iterator[list[str]]:
    """The words of every program that a command starts, without variables before it and what runs it in time."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.wordchars += "@%!,:[]{}$+^"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in OPERATORS:
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words and words[0] == "timeout":
            while words[0] == "timeout" or words[0].startswith("-") or words[0][0].isdecimal():
                words.pop(0)
        if words:
            yield words
        words = []


def _problem(words: list[str]) -> str | None:
    program, *arguments = words
    if program in {"ups", ".venv/bin/ups"} or words[:3] == ["python", "-m", "ups"]:
        return _parsed(_ups(), arguments if program != "python" else arguments[2:])
    if words[:3] == ["python", "-m", "flows"]:
        parser = argparse.ArgumentParser()
        add_configuration(parser)
        return _parsed(parser, arguments[2:])
    if words[:2] == ["python", "-m"]:
        return None if importlib.util.find_spec(words[2]) else f"there is no module {words[2]}"
    if program == "make":
        missing = {word for word in arguments if "=" not in word} - _targets()
        return f"Makefile has no {', '.join(sorted(missing))}" if missing else None
    if words[:3] == ["prefect", "deployment", "run"]:
        return _deployment_problem(arguments[2:])
    return None


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options = parser.parse_args(arguments)
    except SystemExit as end:
        return said.getvalue() if end.code else None
    overrides = parse_overrides(getattr(options, "assignments", []))
    for name in ("config", "baseline", "optimised"):
        path = getattr(options, name, None)
        if isinstance(path, Path):
            load_configuration(CHECKOUT / path, overrides)
    return None


def _deployment_problem(arguments: list[str]) -> str | None:
    name = arguments[0]
    if name not in deployments():
        return f"deployments/prefect.yaml has no {name}"
    for option, value in itertools.pairwise(arguments):
        key, _, given = value.partition("=")
        if option == "--param" and key == "experiment":
            experiment = json.loads(given)
            load_configuration(
                CHECKOUT / "configs" / f"{experiment['config']}.yaml", experiment.get("overrides")
            )
    return None


@cache
def _ups() -> argparse.ArgumentParser:
    return command_line()


@cache
def deployments() -> set[str]:
    """FLOW/NAME of all deployments."""
    listed = yaml.safe_load((CHECKOUT / "deployments" / "prefect.yaml").read_text())["deployments"]
    return {f"{each['entrypoint'].rpartition(':')[2].replace('_', '-')}/{each['name']}" for each in listed}


@cache
def _targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def is_mention(text: str) -> bool:
    """Whether text in backticks names a command, or an option of it, and gives it nothing: `ups cache`,
    `ups plan --probe`, `make run`."""
    program, *words = text.split()
    if program == "python":
        return words == ["-m", "flows"]
    if program == "make":
        return len(words) == 1 and words[0] in _targets()
    if program not in {"ups", ".venv/bin/ups"}:
        return False
    parser = _ups()
    while words and words[0] in (inner := subcommands(parser)):
        parser = inner[words.pop(0)]
    return all(word in parser._option_string_actions for word in words)
