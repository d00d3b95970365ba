"""The share of zeros in a tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith._arrays import read_array
from masksmith._errors import ScoresError
from masksmith.patterns import PatternError


def zero_rate(weight: Any) -> float:
    """Return the share of zeros of an array, tensor or nested lists, or of dropped entries of a mask, in [0, 1].

    Raises:
        ScoresError: If it is no array of real numbers.
        PatternError: If the tensor is empty.
    """
    weight = read_array(weight, lambda reason: ScoresError(reason, name="weight"), "real")
    entries = math.prod(int(length) for length in weight.shape)
    if entries == 0:
        raise PatternError(f"shape {list(weight.shape)} is empty")
    nonzero = weight.count_nonzero() if hasattr(weight, "count_nonzero") else np.count_nonzero(weight)
    return 1.0 - int(nonzero) / entries
