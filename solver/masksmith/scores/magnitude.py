"""Scores by magnitude."""

from __future__ import annotations

from typing import Any

from masksmith._errors import ScoresError

from .operands import as_floats, is_torch


def magnitude(weight: Any, power: float = 1.0) -> Any:
    """Score each weight by its magnitude, `|w| ** power`.

    Args:
        weight: numpy array or torch tensor.
        power: Exponent; with 1 the best mask keeps the largest sum of magnitudes, with 2 the largest sum of squares.

    Returns:
        Scores of the same shape, library and device, in [0, inf). With power 1, those of a float dtype have this dtype.
        Other powers of float16 and bfloat16 are float32, in which they neither overflow nor become 0; so are scores of
        integers, so that -128 does not overflow in 8 bits.

    Raises:
        ScoresError: If the power is not positive and finite.
    """
    if not 0 < power < float("inf"):
        raise ScoresError(f"power={power} does not rank weights by magnitude; expected a positive number")
    if is_torch(weight):
        magnitudes = (weight.detach() if weight.is_floating_point() else weight.detach().float()).abs()
    else:
        is_float = getattr(getattr(weight, "dtype", None), "kind", "") == "f"
        magnitudes = abs(weight if is_float else as_floats(weight))
    return magnitudes if power == 1.0 else as_floats(magnitudes) ** power
