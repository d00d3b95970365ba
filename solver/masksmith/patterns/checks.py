"""Checks shared by several patterns."""

from __future__ import annotations

from .errors import PatternError


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `PatternError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise PatternError(f"{name}={value!r} is none of {', '.join(allowed)}")
