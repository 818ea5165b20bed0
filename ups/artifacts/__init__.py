"""Where truth lives: content-addressed directories, sealed once, verified before use."""

from ups.artifacts.manifest import Artifact, Manifest
from ups.artifacts.store import Store

__all__ = ["Artifact", "Manifest", "Store"]
