"""Reading a score from a tensor on the device, whatever its dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .jit import device


@cache
def reader(element: str) -> Any:
    """Make the function that gives entry (i, j) as a float32, or as a float64 where the tensor holds those."""
    if element == "bfloat16":

        def widen(scores: Any, i: int, j: int) -> Any:
            return np.int32(np.int32(scores[i, j]) << np.int32(16)).view(np.float32)

        return device(widen)
    exact = np.float64 if element == "float64" else np.float32

    def convert(scores: Any, i: int, j: int) -> Any:
        return exact(scores[i, j])

    return device(convert)
