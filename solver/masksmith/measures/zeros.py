"""The share of zeros in a tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith.patterns import PatternError


def zero_rate(weight: Any) -> float:
    """Return the share of zeros of an array or tensor, or of dropped entries of a mask, in [0, 1].

    Raises:
        PatternError: If the tensor is empty.
    """
    entries = math.prod(int(length) for length in weight.shape)
    if entries == 0:
        raise PatternError(f"shape {list(weight.shape)} is empty")
    nonzero = weight.count_nonzero() if hasattr(weight, "count_nonzero") else np.count_nonzero(weight)
    return 1.0 - int(nonzero) / entries
