"""Gram matrices of inputs, in a dtype that holds their squares."""

from __future__ import annotations

import math

import torch

from masksmith._torch_modes import in_full_precision

Tensor = torch.Tensor
SMALL = 2.0**-40
"""Inputs whose largest magnitude is below this, but not 0, are multiplied by a power of two before they are squared."""
LARGEST_EXPONENT = 100
"""Largest exponent of this power, so that the power itself is in the range of float32."""


@in_full_precision()
def product_of(inputs: Tensor) -> Tensor:
    """Return `X^T X` of inputs `X [tokens, in]`.

    The result is float64 if the inputs are float64, or so small that squares in float32 would be 0; else float32.
    """
    inputs = at_least_float32(inputs.detach())
    factor = 1.0 if inputs.dtype == torch.float64 else _factor_of_small(inputs)
    if factor == 1:
        return inputs.T @ inputs
    scaled = inputs * factor
    return (scaled.T @ scaled).double() / factor**2


def at_least_float32(values: Tensor) -> Tensor:
    """Return values of float64 as they are, and others as float32."""
    return values if values.dtype == torch.float64 else values.float()


def _factor_of_small(inputs: Tensor) -> float:
    """Return a power of two to multiply small inputs by, so that their squares are normal numbers; 1 for others."""
    least, greatest = map(float, torch.aminmax(inputs)) if inputs.numel() else (0.0, 0.0)
    largest = max(-least, greatest)
    return 2.0 ** min(LARGEST_EXPONENT, -math.frexp(largest)[1]) if 0 < largest < SMALL else 1.0
