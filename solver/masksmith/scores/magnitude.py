"""Scores by magnitude."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from masksmith._errors import ScoresError

from .operands import as_floats, check_range, is_torch, read_weight

POWERS = (0.1, 10.0)
"""Least and largest power: beyond them, scores of float32 become equal, 0 or infinite."""


@np.errstate(over="ignore")  # An overflow is refused by name.
def magnitude(weight: Any, power: float = 1.0, *, name: str | None = None) -> Any:
    """Score each weight by its magnitude, `|w| ** power`.

    Args:
        weight: numpy array or torch tensor.
        power: Exponent, from 0.1 to 10; with 1 the best mask keeps the largest sum of magnitudes, with 2 the
            largest sum of squares.
        name: Name of the weight in error messages.

    Returns:
        Scores of the same shape, library and device, in [0, inf). With power 1, those of a float dtype have this dtype.
        Other powers of float16 and bfloat16 are float32, in which they neither overflow nor become 0; so are scores of
        integers, so that -128 does not overflow in 8 bits.

    Raises:
        ScoresError: If the power is out of its range, the weight is no dense array of real numbers, a score
            overflows, or all scores underflow.
    """
    if not (isinstance(power, Real) and POWERS[0] <= power <= POWERS[1]):
        raise ScoresError(f"power={power!r} is not a number from {POWERS[0]:g} to {POWERS[1]:g}", name=name)
    array = read_weight(weight, name)
    if is_torch(array):
        magnitudes = (array if array.is_floating_point() else array.float()).abs()
    else:
        magnitudes = abs(array if array.dtype.kind == "f" else as_floats(array, name))
    return magnitudes if power == 1 else check_range(as_floats(magnitudes) ** float(power), magnitudes, name=name)
