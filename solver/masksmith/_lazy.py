"""Lazy loading of a package's public names, at first use (PEP 562), and errors that name the extra to install.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .patterns.errors import MissingExtraError

EXTRAS: Mapping[str, str] = {"torch": "torch", "numba": "solver", "ortools": "solver", "loky": "solver"}
"""Top-level modules that parts of the library import -> the extra by which they are installed."""


def attach(
    package: str, names_of: Mapping[str, Collection[str]], extras: Mapping[str, str] | None = None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: `__name__` of the package.
        names_of: Submodule -> public names that are loaded from it.
        extras: Top-level modules that those submodules import -> the extra that installs them; if a module is
            missing, the error names its extra.
    """
    module_of = {name: module for module, names in names_of.items() for name in names}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with naming_extras(f"{package}.{name}", extras or {}):
            return getattr(import_module(f".{module_of[name]}", package), name)

    return [*module_of], load, lambda: sorted(module_of)


@contextmanager
def naming_extras(what: str, extras: Mapping[str, str] = EXTRAS) -> Iterator[None]:
    """Replace the error for a missing module, raised in the block, by one that names the extra with this module.

    Args:
        what: What needs the module, for the message.
        extras: Top-level modules -> the extra that installs them; errors for other modules stay as they are.

    Raises:
        MissingExtraError: If the block imports a module of `extras` that is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in extras:
            raise
        raise MissingExtraError(what, error.name, extras[error.name]) from None
