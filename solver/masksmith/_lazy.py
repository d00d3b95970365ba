"""Packages whose names are loaded when first used (PEP 562). Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def attach(
    package: str, names_of: Mapping[str, Collection[str]], extra: str = "", brings: Collection[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: Its `__name__`.
        names_of: Submodule -> the public names that it defines.
        extra: Extra of the distribution that those submodules need, if they need one.
        brings: Top-level modules that the extra brings; where one is missing, the error names the extra.
    """
    homes = {name: module for module, names in names_of.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f".{homes[name]}", package)
        except ModuleNotFoundError as error:
            if error.name not in brings:
                raise
            hint = f"{package}.{name} needs {error.name}: pip install 'masksmith[{extra}]'"
            raise ModuleNotFoundError(hint, name=error.name) from None
        return getattr(module, name)

    return [*homes], load, lambda: sorted(homes)
