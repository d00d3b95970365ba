"""Histogram of 16 bits of the scores' bit patterns: one step of a radix selection of a threshold."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from masksmith.kernels.jit import jit

BINS = 1 << 16


@jit
def count(
    keys: npt.NDArray[Any], prefix_mask: Any, prefix: Any, sign: Any, shift: Any, counts: npt.NDArray[Any]
) -> None:
    """Add the histogram of 16 bits of the keys to `counts`.

    Args:
        keys: `[rows, cols]`, bit patterns of non-negative floats as unsigned integers, which sort like the floats.
        prefix_mask: Mask of the bits already selected; only keys that equal `prefix` in these bits are counted.
        prefix: Bits already selected.
        sign: Mask of all bits except the sign, so that -0.0 counts as 0.0.
        shift: Position of the lowest of the 16 bits.
        counts: `[65536]`, changed in place.
    """
    rows, cols = keys.shape
    for i in range(rows):
        for j in range(cols):
            key = keys[i, j] & sign
            if key & prefix_mask == prefix:
                counts[(key >> shift) & 0xFFFF] += 1
