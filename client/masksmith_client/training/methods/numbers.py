"""Range checks of numbers that methods, schedules and refresh settings take."""

from __future__ import annotations

import sys

from masksmith_client._errors import InputError


def check_not_negative(name: str, value: float) -> None:
    """Raise `InputError` unless `value` is at least 0, and a float can hold it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= sys.float_info.max:
        raise InputError(f"{name}={_shown(value)} must be a finite number of at least 0")


def check_integer(name: str, value: int, minimum: int) -> None:
    """Raise `InputError` unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"{name}={_shown(value)} must be a whole number of at least {minimum}")


def check_share(name: str, value: float) -> None:
    """Raise `InputError` unless `value` lies in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{name}={_shown(value)} must lie in (0, 1]")


def _shown(value: object) -> str:
    """Return a value as messages show it; not all digits of integers that no float can hold."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return f"<an integer of {value.bit_length()} bits>"
    return repr(value)
