"""Counts scores by 16 bits at a time: what a threshold is found with, without sorting."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from masksmith.kernels.jit import jit

BINS = 1 << 16


@jit
def count(keys: npt.NDArray[Any], seen: Any, prefix: Any, sign: Any, shift: Any, counts: npt.NDArray[Any]) -> None:
    """Add up how often each value of 16 bits occurs.

    Args:
        keys: `[rows, cols]`, the bits of non-negative floats as unsigned integers, whose order is that of the floats.
        seen: Mask of the bits above; only keys that agree with `prefix` there are counted.
        prefix: Those bits.
        sign: Mask of all bits but the sign, so that -0.0 counts as 0.0.
        shift: Where the 16 bits begin.
        counts: `[65536]`, added to.
    """
    rows, cols = keys.shape
    for i in range(rows):
        for j in range(cols):
            key = keys[i, j] & sign
            if key & seen == prefix:
                counts[(key >> shift) & 0xFFFF] += 1
