"""Operands of the updates: reads and checks a weight, the Gram matrix of its inputs, and a mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from masksmith._arrays import read_array
from masksmith._errors import UpdateError, WeightError
from masksmith._tensors import as_torch, is_torch
from masksmith.scores.operands import MAX_ASYMMETRY, MAX_DAMPING

from .gram_bands import BAND_BYTES, check_range, finite_largest, read_in_bands, symmetrise

FLOATS = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that updated weights can have."""


@dataclass(frozen=True)
class Operands:
    """A layer's weight and Gram matrix in torch, on the weight's device; `inputs` is the product of `[in, *kernel]`.

    Attributes:
        weight: `[out, inputs]`, in the dtype of `original`: a view of `original` where torch can view it, else a copy.
        gram: `[inputs, inputs]`, float64, symmetric, not damped.
        diagonal_damping: Value to add to the diagonal of `gram`: the argument `damping` of `read` times the mean of the
            diagonal; 1 if all of `gram` is 0.
        stored_dtype: The dtype that updated weights are rounded to.
        original: The weight, in its own shape and library.
        name: Name of the weight in error messages.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    diagonal_damping: float
    stored_dtype: torch.dtype
    original: Any
    name: str | None

    @cached_property
    def energy(self) -> torch.Tensor:
        """`||X w||^2` of each row w of the weight, `[out]`, float64, without damping."""
        rows = max(1, BAND_BYTES // (8 * self.weight.shape[1]))
        bands = [band.double() for band in torch.split(self.weight, rows)]
        return torch.cat([((band @ self.gram) * band).sum(1) for band in bands]).clamp(min=0)

    def like_weight(self, values: torch.Tensor) -> Any:
        """Return a matrix `[out, inputs]` in the shape, library and memory format of `original`."""
        full = values.reshape(tuple(self.original.shape))
        if not is_torch(self.original):
            return full.numpy()
        if self.original.ndim < 4 or self.original.is_contiguous():
            return full
        return torch.empty_like(self.original, dtype=full.dtype).copy_(full)


def read(weight: Any, gram: Any, damping: float, name: str | None, rounded_to: str | None = None) -> Operands:
    """Check weight, Gram matrix and damping, and convert them to torch.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch.
        gram: `[inputs, inputs]`, numpy, torch or `GramRows`.
        damping: Share of the mean of the Gram matrix's diagonal, from 0 to `MAX_DAMPING`.
        name: Name of the weight in error messages.
        rounded_to: Name of the dtype that updated weights are rounded to; by default the weight's dtype.

    Raises:
        WeightError: If the weight is no dense array; if its shape, dtype or a value is not supported; or if a value
            overflows in the dtype that weights are rounded to.
        UpdateError: If the Gram matrix is no dense array, its shape or a value is not supported, or it is not
            symmetric; or if an option is invalid.
    """
    weight = read_array(weight, lambda reason: WeightError(reason, name), "real")
    shape, dtype = tuple(int(length) for length in weight.shape), str(weight.dtype).removeprefix("torch.")
    if len(shape) < 2 or 0 in shape:
        raise WeightError(
            f"shape {list(shape)} is not that of a weight; expected [out, in] or [out, in, *kernel]", name
        )
    if dtype not in FLOATS:
        raise WeightError(f"dtype {dtype} cannot hold updated weights; use {', '.join(FLOATS)}", name)
    if not 0 <= damping <= MAX_DAMPING:
        raise UpdateError(f"damping={damping!r} is not a number from 0 to {MAX_DAMPING:g}", name)
    if rounded_to is not None and rounded_to not in FLOATS:
        raise UpdateError(f"rounded_to={rounded_to!r} is none of {', '.join(FLOATS)}", name)
    matrix = as_torch(weight).reshape(shape[0], -1)
    check_range(finite_largest(matrix, "weight", name, error=WeightError), "weight", name, error=WeightError)
    gram_matrix = _gram(gram, matrix, name)
    # If all inputs were 0, any positive value on the diagonal gives the right result: no change.
    diagonal_damping = damping * float(gram_matrix.diagonal().mean()) if bool(gram_matrix.any()) else 1.0
    stored_dtype = matrix.dtype if rounded_to is None else getattr(torch, rounded_to)
    if not bool(matrix.abs().max().to(stored_dtype).isfinite()):
        raise WeightError(f"weight holds {float(matrix.abs().max()):g}, which overflows in {rounded_to}", name)
    return Operands(matrix, gram_matrix, diagonal_damping, stored_dtype, weight, name)


def read_mask(mask: Any, operands: Operands) -> torch.Tensor:
    """Return a mask as a bool matrix on the weight's device.

    Raises:
        UpdateError: If it is no dense array, its shape is not the weight's, or an entry is neither 0 nor 1.
    """
    mask = read_array(mask, lambda reason: UpdateError(f"mask: {reason}", operands.name), "real")
    shape, expected = list(mask.shape), list(operands.original.shape)
    if shape != expected:
        raise UpdateError(f"mask has shape {shape}, the weight has {expected}", operands.name)
    matrix: torch.Tensor = as_torch(mask).reshape(operands.weight.shape).to(operands.weight.device)
    if matrix.dtype is not torch.bool:
        invalid = (matrix != 0) & (matrix != 1)
        if bool(invalid.any()):
            raise UpdateError(f"mask holds {float(matrix[invalid][0]):g}; expected True and False", operands.name)
    return matrix.bool()


def _gram(gram: Any, matrix: torch.Tensor, name: str | None) -> torch.Tensor:
    """Read, check and symmetrise the Gram matrix of the weight `matrix`, `[out, inputs]`."""
    if not hasattr(gram, "rows"):
        gram = read_array(gram, lambda reason: UpdateError(f"gram: {reason}", name), "real")
    shape, inputs = list(gram.shape), matrix.shape[1]
    if shape != [inputs, inputs]:
        expected = [inputs, inputs]
        raise UpdateError(f"gram has shape {shape}, a weight of {list(matrix.shape)} needs {expected}", name)
    gram_matrix, largest_entry = read_in_bands(gram, matrix.device, name)
    check_range(largest_entry, "gram", name)
    if bool((gram_matrix.diagonal() < 0).any()):
        i = int(gram_matrix.diagonal().argmin())
        message = f"gram holds {float(gram_matrix[i, i]):g} at {[i, i]}; expected sums of squares on the diagonal"
        raise UpdateError(message, name)
    skew, index = symmetrise(gram_matrix)
    if skew > MAX_ASYMMETRY * largest_entry:
        raise UpdateError(f"gram is not symmetric at {index}; expected X^T X of the layer's inputs", name)
    return gram_matrix
