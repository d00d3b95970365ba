"""Lazy loading of a package's public names, at first use (PEP 562). Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def attach(
    package: str, names_of: Mapping[str, Collection[str]], extra: str = "", brings: Collection[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: `__name__` of the package.
        names_of: Submodule -> public names that it defines.
        extra: Extra of the distribution that those submodules require, if any.
        brings: Top-level modules installed by the extra; if one is missing, the error names the extra.
    """
    module_of = {name: module for module, names in names_of.items() for name in names}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f".{module_of[name]}", package)
        except ModuleNotFoundError as error:
            if error.name not in brings:
                raise
            hint = f"{package}.{name} needs {error.name}: pip install 'masksmith[{extra}]'"
            raise ModuleNotFoundError(hint, name=error.name) from None
        return getattr(module, name)

    return [*module_of], load, lambda: sorted(module_of)
