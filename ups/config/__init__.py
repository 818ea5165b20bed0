"""Configuration: one complete, frozen, typo-proof file per run. Defaults live in `schema` only."""

from ups.config.load import load_configuration
from ups.config.schema import Configuration

__all__ = ["Configuration", "load_configuration"]
