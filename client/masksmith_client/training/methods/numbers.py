"""Range checks of numbers that methods, schedules and refresh settings take."""

from __future__ import annotations

import math

from masksmith_client._errors import InputError


def check_not_negative(name: str, value: float) -> None:
    """Raise `InputError` unless `value` is finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name}={value!r} must be a finite number of at least 0")


def check_integer(name: str, value: int, minimum: int) -> None:
    """Raise `InputError` unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"{name}={value!r} must be a whole number of at least {minimum}")


def check_share(name: str, value: float) -> None:
    """Raise `InputError` unless `value` lies in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{name}={value!r} must lie in (0, 1]")
