"""Checks shared by several patterns."""

from __future__ import annotations

import operator

from .errors import PatternError


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `PatternError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise PatternError(f"{name}={value!r} is none of {', '.join(allowed)}")


def convert_to_integers(pattern: object, *names: str) -> None:
    """Replace attributes of a frozen pattern by equal numbers of type `int`, such as 2 for numpy's 2; None stays None.

    Raises:
        PatternError: If one is not an integer, such as 2.0.
    """
    for name in names:
        value = getattr(pattern, name)
        if value is None:
            continue
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise PatternError(f"{name}={value!r} is not an integer")
        object.__setattr__(pattern, name, operator.index(value))
