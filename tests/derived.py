"""Keys of a whole chain that was never built, as if whatever changes a stage's key changed its bytes too."""

from types import SimpleNamespace
from typing import Any

from ups.artifacts import Store
from ups.artifacts.identity import digest_of
from ups.config import Configuration
from ups.config.schema import STAGES
from ups.pipeline.plan import derive, derive_parts


def derivations(configuration: Configuration, store: Store) -> dict[str, dict[str, Any]]:
    """What each stage's key is taken of."""
    found: dict[str, dict[str, Any]] = {}
    contents: dict[Any, Any] = {}
    parts = {
        f"{problem}/{split}": {"content": digest_of(derivation)}
        for problem, splits in derive_parts(configuration, store).items()
        for split, derivation in splits.items()
    }
    for name in STAGES:
        found[name] = derive(name, configuration, contents, store)
        contents[name] = SimpleNamespace(
            stage=name, manifest=SimpleNamespace(content=digest_of(found[name]), parts=parts)
        )
    return found


def digests(configuration: Configuration, store: Store) -> dict[str, str]:
    """The key of each stage."""
    return {name: digest_of(derivation) for name, derivation in derivations(configuration, store).items()}
