"""Packages whose names are loaded when first used (PEP 562). Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .patterns.errors import MissingExtraError

EXTRAS: Mapping[str, str] = {"torch": "torch", "numba": "solver", "ortools": "solver", "loky": "solver"}
"""Top-level modules that parts of the library import -> the extra of the distribution that installs them."""


def attach(
    package: str, names_of: Mapping[str, Collection[str]], extras: Mapping[str, str] | None = None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: Its `__name__`.
        names_of: Submodule -> the public names that it defines.
        extras: Top-level modules that those submodules import -> the extra that installs them; where one is missing,
            the error names the extra.
    """
    homes = {name: module for module, names in names_of.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with naming_extras(f"{package}.{name}", extras or {}):
            return getattr(import_module(f".{homes[name]}", package), name)

    return [*homes], load, lambda: sorted(homes)


@contextmanager
def naming_extras(what: str, extras: Mapping[str, str] = EXTRAS) -> Iterator[None]:
    """Name the extra where what is imported inside is not installed.

    Raises:
        MissingExtraError: Then.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in extras:
            raise
        raise MissingExtraError(what, error.name, extras[error.name]) from None
