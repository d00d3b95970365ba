"""Densities: percentages that survive being written down, and whole numbers made of them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from .errors import PatternError

SMALLEST = 1e-9


def check_density(density: float) -> float:
    """Give a density back as a float.

    Raises:
        PatternError: If it is not a share in (0, 1], or too small to be meant.
    """
    if isinstance(density, bool) or not isinstance(density, int | float) or not SMALLEST <= density <= 1:
        raise PatternError(f"density={density!r} is no share of the entries in (0, 1]; '10%' keeps a tenth")
    return float(density)


def to_percent(density: float) -> str:
    """Write a density so that `from_percent` gives the very same float back."""
    return f"{Decimal(repr(density)).scaleb(2).normalize():f}%"


def from_percent(number: str) -> float:
    """Read the number before a percent sign."""
    return float(Decimal(number).scaleb(-2))


def share(density: float, units: int, what: str, pattern: object) -> int:
    """Round a density to a number of units, halves up; exact, whatever floats make of the product.

    Raises:
        PatternError: If that leaves no unit at all.
    """
    kept = int(Fraction(repr(density)) * units + Fraction(1, 2))
    if kept == 0:
        raise PatternError(f"{pattern}: {to_percent(density)} of {units} {what} rounds to none; raise the density")
    return kept


def spread(total: int, parts: int) -> list[int]:
    """Divide a total over parts that all have the same claim: largest remainders, ties to the first."""
    least, rest = divmod(total, parts)
    return [least + (part < rest) for part in range(parts)]
