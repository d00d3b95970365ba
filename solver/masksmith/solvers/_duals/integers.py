"""Scores as integers: one power of two a tile, exact wherever the tile's range allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Exponents = npt.NDArray[np.int32]
_NEVER = 1 << 20


def exact_shifts(tiles: npt.NDArray[Any], bits: int) -> tuple[Exponents, Exponents]:
    """Choose exponents `k` such that `w * 2^k` stays below `2^bits`, and is an integer if it can be.

    Args:
        tiles: `[T, R, C]`, finite and non-negative.
        bits: Size of the integers allowed.

    Returns:
        `[T]` the exponents, and `[T]` the bits that each tile needs to be exact; more than `bits` means that its
        scores have to be rounded.
    """
    flat = tiles.reshape(len(tiles), -1).astype(np.float64, copy=False)
    fraction, exponent = np.frexp(flat)
    digits = np.ldexp(fraction, 53).astype(np.int64)
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] + exponent - 54
    lowest = np.where(digits == 0, _NEVER, lowest).min(1)
    top = np.where(digits == 0, -_NEVER, exponent).max(1)
    needed = np.maximum(top - lowest, 0)
    shifts = np.where(needed <= bits, -lowest, bits - top)
    return np.where(lowest == _NEVER, 0, shifts).astype(np.int32), needed.astype(np.int32)


def to_integers(tiles: npt.NDArray[Any], shifts: Exponents) -> Integers:
    """Give `round(w * 2^k)` for scores `[T, R, C]` and exponents `[T]`."""
    return np.rint(np.ldexp(tiles.astype(np.float64, copy=False), shifts[:, None, None])).astype(np.int64)
