"""Scales scores to integers by one power of two per tile, without rounding if a given number of bits is enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Exponents = npt.NDArray[np.int32]
_NO_BIT = 1 << 20
"""Exponent of the lowest bit of a score of 0, which has no bits; the exponent of its highest bit is `-_NO_BIT`.

It exceeds the exponents of all bits, so minima and maxima over a tile ignore scores of 0.
"""


def choose_shifts(tiles: npt.NDArray[Any], bits: int) -> tuple[Exponents, Exponents]:
    """Choose a shift `k` for each tile: for its scores `w`, `w * 2^k` is below `2^bits`, and an integer if possible.

    Args:
        tiles: `[T, R, C]`, finite and non-negative.
        bits: Maximum number of bits of the integers; an integer that is rounded up may equal `2^bits`.

    Returns:
        The shifts `[T]`, and the number of bits `[T]` that the integers of each tile need to be exact. If a tile needs
        more than `bits`, `to_integers` rounds its scores.
    """
    flat = tiles.reshape(len(tiles), -1).astype(np.float64, copy=False)
    fraction, exponent = np.frexp(flat)
    digits = np.ldexp(fraction, 53).astype(np.int64)
    # Exponent of the lowest bit that is set in each score, and then in any score of a tile. A score is
    # `digits * 2^(exponent - 53)`, and `frexp` of `2^j` returns the exponent `j + 1`.
    lowest_bit = np.frexp((digits & -digits).astype(np.float64))[1] + exponent - 54
    lowest_bit = np.where(digits == 0, _NO_BIT, lowest_bit).min(1)
    # Exponent of the highest bit plus 1.
    past_highest_bit = np.where(digits == 0, -_NO_BIT, exponent).max(1)
    needed_bits = np.maximum(past_highest_bit - lowest_bit, 0)
    shifts = np.where(needed_bits <= bits, -lowest_bit, bits - past_highest_bit)
    return np.where(lowest_bit == _NO_BIT, 0, shifts).astype(np.int32), needed_bits.astype(np.int32)


def to_integers(tiles: npt.NDArray[Any], shifts: Exponents) -> Integers:
    """Return `round(w * 2^k)` for scores `w`, `[T, R, C]`, and shifts `k`, `[T]`."""
    return np.rint(np.ldexp(tiles.astype(np.float64, copy=False), shifts[:, None, None])).astype(np.int64)
