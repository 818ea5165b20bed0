"""`ups validate CONFIG`."""

import argparse

import yaml

from ups.commands.arguments import add_configuration
from ups.config import load_configuration
from ups.config.load import parse_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)


def execute(options: argparse.Namespace) -> None:
    """Print the complete configuration, defaults filled in."""
    configuration = load_configuration(options.config, parse_overrides(options.assignments))
    print(yaml.safe_dump(configuration.model_dump(mode="json"), sort_keys=False), end="")
