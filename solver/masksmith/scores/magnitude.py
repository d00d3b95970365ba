"""Magnitude scores."""

from __future__ import annotations

from typing import Any

from masksmith._errors import ScoresError

from .operands import as_floats, is_torch


def magnitude(weight: Any, power: float = 1.0) -> Any:
    """Score each weight by its magnitude, `|w| ** power`.

    Args:
        weight: numpy array or torch tensor.
        power: 1 keeps the largest sum of magnitudes, 2 the largest sum of squares.

    Returns:
        Scores of the same shape, library and device, in [0, inf); 8-bit integers become float32, so that -128 does not
        overflow.

    Raises:
        ScoresError: If the power is not positive and finite.
    """
    if not 0 < power < float("inf"):
        raise ScoresError(f"power={power} does not rank weights by magnitude; expected a positive number")
    if is_torch(weight):
        size = (weight.detach() if weight.is_floating_point() else weight.detach().float()).abs()
    else:
        size = abs(weight if getattr(getattr(weight, "dtype", None), "kind", "") == "f" else as_floats(weight))
    return size if power == 1.0 else size**power
