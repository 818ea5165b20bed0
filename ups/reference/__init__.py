"""Trained surrogates that come with the library, by name: files that `ups export` wrote."""

from pathlib import Path

from ups.errors import ConfigurationError

SURROGATE = ".safetensors"


def reference_models() -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob(f"*{SURROGATE}"))}


def reference_model(name: str) -> Path:
    """The file of a model of this name; for the inside of what has looked for a run and a file.

    Raises:
        ConfigurationError: there is none.
    """
    models = reference_models()
    if name not in models:
        raise ConfigurationError(
            "there is no such run or file, and no model of this name comes with the library",
            where=name,
            fix=f"give a directory below runs/, what `ups export` wrote, or one of {', '.join(models)}",
        )
    return models[name]
