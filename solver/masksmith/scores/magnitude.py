"""Scores by magnitude."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from masksmith._errors import ScoresError

from .operands import as_floats, check_range, is_torch, read_weight

POWER_RANGE = (0.1, 10.0)
"""Least and largest power: beyond them, most scores of float32 become equal, 0 or infinite."""


@np.errstate(over="ignore")  # `check_range` refuses overflows.
def magnitude(weight: Any, power: float = 1.0, *, name: str | None = None) -> Any:
    """Score each weight by its magnitude, `|w| ** power`.

    Args:
        weight: numpy array or torch tensor.
        power: Exponent, from 0.1 to 10; with 1 the best mask keeps the largest sum of magnitudes, with 2 the
            largest sum of squares.
        name: Name of the weight in error messages.

    Returns:
        Non-negative scores of the same shape, library and device. With power 1, weights of a float dtype have scores of
        this dtype. With another power, weights of float16 and bfloat16 have scores of float32, in which fewer scores
        overflow or become 0. Integers, and floats of 8 bits, have scores of float32: -128 would overflow in 8 bits, and
        libraries lack operations for floats of 8 bits.

    Raises:
        ScoresError: If the power is out of its range; if the weight is no dense array of real numbers; if a score
            overflows; or if all scores underflow.
    """
    if not (isinstance(power, Real) and POWER_RANGE[0] <= power <= POWER_RANGE[1]):
        raise ScoresError(f"power={power!r} is not a number from {POWER_RANGE[0]:g} to {POWER_RANGE[1]:g}", name=name)
    array = read_weight(weight, name)
    if is_torch(array):
        has_abs = array.is_floating_point() and array.element_size() > 1
        magnitudes = (array if has_abs else array.float()).abs()
    else:
        magnitudes = abs(array if array.dtype.kind == "f" else as_floats(array, name))
    return magnitudes if power == 1 else check_range(as_floats(magnitudes) ** float(power), magnitudes, name=name)
