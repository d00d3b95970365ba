"""Values of units (blocks, channels): float64 sums, and exact sums of the units for which rounding errors matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals

Indices = npt.NDArray[np.int64]
ReadExact = Callable[[Indices], Iterable[Fraction]]
"""Returns exact numbers for units, given by sorted flat indices; they compare as the exact values of the units do."""
SmallestBit = Callable[[], float]
"""Returns the largest power of two of which all scores are multiples; infinity if all are 0."""

ROUNDING_ERROR = 2.0**-52
"""Bound on the relative rounding error of a float64 operation on non-negative numbers: twice the unit roundoff."""


class UnitValues:
    """Values of units in float64, with a bound on their rounding errors, and exact ones on demand.

    Args:
        rounded: The values in float64, none negative.
        operations: Largest number of rounded operations in a value; 0 if the values are exact.
        read_exact: Reads exact numbers; called only for units whose order the rounded values do not determine.
        smallest_bit: If the values are sums of scores, reads all scores to find out whether rounding changed a sum;
            None for other values. Called before the first call of `read_exact`, which is not called if no sum changed.

    Attributes:
        rounded: As given.
        tolerance: Two exact values have the order of their rounded values if these differ by a larger factor than
            `1 + tolerance`.
    """

    def __init__(
        self, rounded: Duals, operations: int, read_exact: ReadExact, smallest_bit: SmallestBit | None = None
    ) -> None:
        self.rounded = rounded
        self.tolerance = 4 * operations * ROUNDING_ERROR
        self._read_exact, self._smallest_bit = read_exact, smallest_bit
        self._exact: dict[int, Fraction] = {}

    def close_to(self, value: float, units: Indices) -> Bools:
        """Return for each unit whether it is so close to `value` that the order of the exact numbers may differ."""
        rounded, factor = self.rounded.reshape(-1)[units], 1 + self.tolerance
        return np.asarray((rounded / factor <= value) & (rounded >= value / factor))

    def exact(self, units: Indices) -> npt.NDArray[Any]:
        """Return an exact number for each unit; the exact values of the units have the order of these numbers."""
        if self._are_sums_exact:
            return np.asarray(self.rounded.reshape(-1)[units])
        missing = np.array(sorted(set(units.tolist()) - self._exact.keys()), np.int64)
        if missing.size:
            self._exact |= zip(missing.tolist(), self._read_exact(missing), strict=True)
        return np.array([self._exact[unit] for unit in units.tolist()], object)

    @cached_property
    def _are_sums_exact(self) -> bool:
        """Whether the rounded values are exact: multiples of one power of two, and less than 2^53 times this power."""
        if self._smallest_bit is None:
            return self.tolerance == 0.0
        return bool(self.rounded.max() < self._smallest_bit() * 2.0**53)


def smallest_bit(panels: Iterable[npt.NDArray[Any]]) -> float:
    """Return the largest power of two of which all scores in some panels are multiples; infinity if all are 0."""
    smallest = math.inf
    for panel in panels:
        mantissas, exponents = np.frexp(panel[panel > 0].astype(np.float64))
        integers = np.ldexp(mantissas, 53).astype(np.int64)
        lowest_bits = np.ldexp((integers & -integers).astype(np.float64), exponents - 53)
        smallest = min(smallest, lowest_bits.min(initial=math.inf))
    return smallest


class ExactSum:
    """An exact sum of float64 numbers, as a sum of few numbers that do not overlap."""

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, numbers: npt.NDArray[Any]) -> None:
        """Add numbers, whose sum with those before must not overflow."""
        terms = [*self._parts, *numbers.astype(np.float64, copy=False).ravel().tolist()]
        self._parts = []
        while (part := math.fsum(terms)) != 0.0:
            self._parts.append(part)
            terms.append(-part)

    def total(self) -> Fraction:
        """Return the sum."""
        return sum(map(Fraction, self._parts), Fraction(0))


def exact_sum_of_squares(numbers: npt.NDArray[Any]) -> Fraction:
    """Return the exact sum of the squares of finite numbers."""
    if numbers.dtype == np.float64:
        return sum((Fraction(number) ** 2 for number in numbers.ravel().tolist()), Fraction(0))
    squares = ExactSum()  # The square of a float of 32 bits has at most 48 bits, so it is exact in float64.
    squares.add(np.square(numbers, dtype=np.float64))
    return squares.total()
