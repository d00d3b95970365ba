"""What the updates read: a weight, its inputs' Gram matrix and perhaps a mask, checked against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from masksmith._errors import UpdateError
from masksmith._tensors import is_torch

FLOATS = ("float64", "float32", "float16", "bfloat16")
ASYMMETRY = 1e-5
"""Largest difference between a Gram matrix and its transpose, as a share of its largest entry: float32 sums have it."""


@dataclass(frozen=True)
class Operands:
    """A layer as the updates see it, in torch, on the weight's device.

    Attributes:
        weight: `[out, inputs]`, in its own dtype; a view.
        gram: `[inputs, inputs]`, float64, symmetric, not damped.
        damping: What is added to the diagonal of `gram`.
        stored: The dtype that updated weights are rounded to.
        given: The weight as given.
        name: What messages call it.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    damping: float
    stored: torch.dtype
    given: Any
    name: str | None

    def hand_over(self, values: torch.Tensor) -> Any:
        """Give a matrix in the shape and library of the weight."""
        full = values.reshape(tuple(self.given.shape))
        return full if is_torch(self.given) else full.numpy()


def read(weight: Any, gram: Any, damping: float, name: str | None, rounded_to: str | None = None) -> Operands:
    """Check weight, Gram matrix and damping, and bring them together.

    Raises:
        UpdateError: If they cannot be used.
    """
    shape, dtype = tuple(int(length) for length in weight.shape), str(weight.dtype).removeprefix("torch.")
    if len(shape) < 2 or 0 in shape:
        raise UpdateError(f"shape {list(shape)} is no weight's; expected [out, in] or [out, in, *kernel]", name)
    if dtype not in FLOATS:
        raise UpdateError(f"dtype {dtype} cannot hold updated weights; use {', '.join(FLOATS)}", name)
    if not (0 <= damping < math.inf):
        raise UpdateError(f"damping={damping} must be a finite share of at least 0", name)
    if rounded_to is not None and rounded_to not in FLOATS:
        raise UpdateError(f"rounded_to={rounded_to!r} is none of {', '.join(FLOATS)}", name)
    matrix = _tensor(weight).reshape(shape[0], -1)
    _refuse_not_finite(matrix, "weight", name)
    products = _gram(gram, matrix, name)
    # Where no input ever moved, nothing is to be made up for; any damping says so.
    added = damping * float(products.diagonal().mean()) if bool(products.any()) else 1.0
    stored = matrix.dtype if rounded_to is None else getattr(torch, rounded_to)
    return Operands(matrix, products, added, stored, weight, name)


def read_mask(mask: Any, operands: Operands) -> torch.Tensor:
    """Give a mask as a bool matrix beside the weight.

    Raises:
        UpdateError: If its shape is not the weight's, or it holds something else than 0 and 1.
    """
    found, wanted = list(mask.shape), list(operands.given.shape)
    if found != wanted:
        raise UpdateError(f"mask has shape {found}, the weight has {wanted}", operands.name)
    matrix = _tensor(mask).reshape(operands.weight.shape).to(operands.weight.device)
    if matrix.dtype is not torch.bool:
        strange = (matrix != 0) & (matrix != 1)
        if bool(strange.any()):
            raise UpdateError(f"mask holds {float(matrix[strange][0]):g}; expected True and False", operands.name)
    return matrix.bool()


def _gram(gram: Any, matrix: torch.Tensor, name: str | None) -> torch.Tensor:
    found, inputs = list(gram.shape), matrix.shape[1]
    if found != [inputs, inputs]:
        wanted = [inputs, inputs]
        raise UpdateError(f"gram has shape {found}, a weight of {list(matrix.shape)} needs {wanted}", name)
    products = _tensor(gram).to(device=matrix.device, dtype=torch.float64)
    _refuse_not_finite(products, "gram", name)
    if bool((products.diagonal() < 0).any()):
        place = int(products.diagonal().argmin())
        raise UpdateError(
            f"gram holds {float(products[place, place]):g} at {[place, place]}; squares add up there", name
        )
    skew = (products - products.T).abs()
    if float(skew.max()) > ASYMMETRY * float(products.abs().max()):
        index = [int(k) for k in np.unravel_index(int(skew.argmax()), skew.shape)]
        raise UpdateError(f"gram is not symmetric at {index}; expected X^T X of the layer's inputs", name)
    return (products + products.T) / 2


def _tensor(values: Any) -> torch.Tensor:
    if is_torch(values):
        return torch.as_tensor(values).detach()
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _refuse_not_finite(values: torch.Tensor, what: str, name: str | None) -> None:
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        index = [int(k) for k in bad.nonzero()[0]]
        raise UpdateError(f"{what} holds {float(values[tuple(index)]):g} at {index}", name)
