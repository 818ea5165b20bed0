"""Kinds: what a configuration chooses by one word, each in files of that name.

A kind has a file in a package of settings, which are light, and one of the same name in the package of what they are the
settings of, which may need torch. Both are found by the word, and no list names them. So one more kind touches its
own files only, and a run depends on the kinds that it uses (see `ups.artifacts.identity`).

Rejected: a decorator that registers, for which somebody must import the file first; entry points, which are for
packages of others.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Union

from pydantic import Discriminator, Field, Tag, create_model

from ups.section import Section


@cache
def kinds_of(package: str) -> tuple[str, ...]:
    """Names of the modules of a package, in alphabetical order. None of them is imported."""
    return tuple(
        sorted(found.name for found in pkgutil.iter_modules(importlib.import_module(package).__path__))
    )


def module_of(package: str, kind: str) -> ModuleType:
    """The module of a kind.

    Raises:
        ValueError: there is none. The word may come from a file, and is no path to any other module.
    """
    if kind not in kinds_of(package):
        raise ValueError(f"there is no {kind!r} in {package}: {', '.join(kinds_of(package))}")
    return importlib.import_module(f"{package}.{kind}")


def sections_of(package: str) -> dict[str, type[Section]]:
    """The settings of every kind of a package: the one section that each module defines.

    Raises:
        TypeError: a module defines none, or several.
    """
    found = {}
    for kind in kinds_of(package):
        module = module_of(package, kind)
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Section) and value.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise TypeError(f"{module.__name__} must define one section, not {len(own)}")
        found[kind] = own[0]
    return found


def kind_of(section: Section) -> str:
    """The word that a section was chosen by."""
    return getattr(section, "kind")  # noqa: B009  each declares its own


def choice_of(sections: Mapping[str, type[Section]], *, default: str | None = None) -> Any:
    """The discriminated union of sections, for a field of the schema.

    default: the kind that is meant where the word is absent; None: it must be there.
    """

    def kind(value: object) -> str | None:
        read = value.get if isinstance(value, dict) else lambda key, default: getattr(value, key, default)
        found = read("kind", default)
        return None if found is None else str(found)

    tagged = tuple(Annotated[section, Tag(name)] for name, section in sections.items())
    return Annotated[Union[tagged], Discriminator(kind)]  # noqa: UP007  of as many as there are


def some_of(name: str, sections: Mapping[str, type[Section]]) -> type[Section]:
    """A section with one key per kind, each null or that kind's settings: of which any number may be chosen."""
    fields: dict[str, Any] = {
        kind: (section | None, Field(default=None, description=f"{section.__doc__} null: without it"))
        for kind, section in sections.items()
    }
    return create_model(name, __base__=Section, __doc__="Any number of these.", **fields)
