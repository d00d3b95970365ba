"""Densities: their range, lossless conversion to and from percentages, and the whole numbers of units they keep."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from numbers import Real

from .errors import PatternError

MIN_DENSITY = 1e-9
"""Smallest density that is accepted."""


def check_density(density: float) -> float:
    """Check a density, a real number of any type such as numpy's float32, and return it as a float.

    Raises:
        PatternError: If it is not a number between 1e-9 and 1.
    """
    if isinstance(density, bool) or not isinstance(density, Real) or not MIN_DENSITY <= density <= 1:
        raise PatternError(f"density={density!r} is not in [{MIN_DENSITY:g}, 1]; '10%' keeps a tenth of the entries")
    return float(density)


def to_percent(density: float) -> str:
    """Format a density so that `from_percent` returns exactly the same float."""
    return f"{Decimal(repr(density)).scaleb(2).normalize():f}%"


def from_percent(number: str) -> float:
    """Return the density of a percentage, from the number before the percent sign."""
    return float(Decimal(number).scaleb(-2))


def kept_units(density: float, units: int, unit_name: str, pattern: object) -> int:
    """Return `density * units`, rounded to an integer, halves up; computed exactly from the digits of the density.

    `unit_name` (a plural) and `pattern` are for the message of the error.

    Raises:
        PatternError: If the result is 0.
    """
    kept = int(Fraction(repr(density)) * units + Fraction(1, 2))
    if kept == 0:
        raise PatternError(f"{pattern}: {to_percent(density)} of {units} {unit_name} rounds to none; raise the density")
    return kept


def split_evenly(total: int, parts: int) -> list[int]:
    """Split a total into integer parts that differ by 1 at most, the larger ones first."""
    quotient, remainder = divmod(total, parts)
    return [quotient + (part < remainder) for part in range(parts)]
