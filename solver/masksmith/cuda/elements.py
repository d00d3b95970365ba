"""Device functions that read a score from a tensor of any supported dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .jit import device


@cache
def reader(element: str) -> Any:
    """Compile a function that reads the score at (i, j), as float64 if `element` is `float64`, else as float32."""
    if element == "bfloat16":

        def widen(scores: Any, i: int, j: int) -> Any:
            # The bits of a bfloat16 are the upper half of the bits of the equal float32.
            return np.int32(np.int32(scores[i, j]) << np.int32(16)).view(np.float32)

        return device(widen)
    dtype = np.float64 if element == "float64" else np.float32

    def convert(scores: Any, i: int, j: int) -> Any:
        return dtype(scores[i, j])

    return device(convert)
