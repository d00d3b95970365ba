"""Reads a Gram matrix in bands of rows, checks it, and symmetrises it in place: only one float64 copy is in memory."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch

from masksmith._errors import UpdateError
from masksmith._tensors import as_torch

BAND_BYTES = 2**26
"""Bytes of the rows, in float64, that are read at a time; a row with more bytes is read alone."""
BLOCK = 2048
"""Side of the square blocks that are compared with their transposes, one at a time."""

RANGE = (1e-60, 1e60)
"""Range that the largest absolute entry of a weight or Gram matrix must be in.

Outside of it, the output's error would overflow or underflow when it is computed in float64.
"""


class GramRows(Protocol):
    """A Gram matrix whose rows are read when needed, for example from a file; can be passed instead of an array.

    Attributes:
        shape: `(inputs, inputs)`.
    """

    shape: tuple[int, ...]

    def rows(self, first: int, last: int) -> Any:
        """Return rows `first` to `last` (exclusive), numpy or torch."""


def read_in_bands(gram: Any, device: torch.device, name: str | None) -> tuple[torch.Tensor, float]:
    """Read a Gram matrix into a new float64 tensor; return the tensor and its largest absolute entry.

    Args:
        gram: `[inputs, inputs]`, numpy, torch or `GramRows`.
        device: Device of the tensor.
        name: Name of the weight in error messages.

    Raises:
        UpdateError: If an entry is not finite.
    """
    length, largest = int(gram.shape[0]), 0.0
    gram_matrix = torch.empty((length, length), dtype=torch.float64, device=device)
    step = max(1, BAND_BYTES // (8 * max(1, length)))
    for first in range(0, length, step):
        last = min(first + step, length)
        band = gram.rows(first, last) if hasattr(gram, "rows") else gram[first:last]
        gram_matrix[first:last] = as_torch(band).to(device)
        largest = max(largest, finite_largest(gram_matrix[first:last], "gram", name, first))
    return gram_matrix, largest


def symmetrise(matrix: torch.Tensor) -> tuple[float, list[int]]:
    """Replace a matrix, in place and block by block, by the mean of itself and its transpose.

    Returns:
        The largest absolute difference between an entry of the matrix and the same entry of its transpose, and the
        index of such an entry; 0 and `[0, 0]` for a symmetric matrix.
    """
    largest, index = 0.0, [0, 0]
    for i in range(0, len(matrix), BLOCK):
        for j in range(i, len(matrix), BLOCK):
            upper, lower = matrix[i : i + BLOCK, j : j + BLOCK], matrix[j : j + BLOCK, i : i + BLOCK]
            skew = upper - lower.T
            largest_here = largest_absolute(skew)
            if largest_here == 0:
                continue
            if largest_here > largest:
                largest = largest_here
                row, column = np.unravel_index(int(skew.abs().argmax()), skew.shape)
                index = [i + int(row), j + int(column)]
            mean = (upper + lower.T) / 2
            upper.copy_(mean)
            lower.copy_(mean.T)
    return largest, index


def largest_absolute(values: torch.Tensor) -> float:
    """Return the largest absolute entry; NaN if an entry is NaN."""
    least, greatest = (float(bound) for bound in torch.aminmax(values))
    return max(abs(least), abs(greatest))


def finite_largest(
    values: torch.Tensor, label: str, name: str | None, first: int = 0, error: type[UpdateError] = UpdateError
) -> float:
    """Return the largest absolute entry of some rows, after a check that all entries are finite.

    Args:
        values: The rows.
        label: Name of the values in error messages.
        name: Name of the weight in error messages.
        first: Number of the first row, for the index in error messages.
        error: Class of the error.

    Raises:
        UpdateError: If an entry is not finite; the message has the first such entry and its index.
    """
    largest = largest_absolute(values)
    if not math.isfinite(largest):
        invalid = ~torch.isfinite(values)
        index = [int(position) for position in invalid.nonzero()[0]]
        full_index = [index[0] + first, *index[1:]]
        raise error(f"{label} holds {float(values[tuple(index)]):g} at {full_index}", name)
    return largest


def check_range(largest: float, label: str, name: str | None, error: type[UpdateError] = UpdateError) -> None:
    """Check that the largest absolute entry of a weight or Gram matrix is in `RANGE`, or 0.

    Raises:
        UpdateError: If it is neither.
    """
    if largest != 0 and not RANGE[0] <= largest <= RANGE[1]:
        reason = f"the largest entry of {label} is {largest:.3g}, not from {RANGE[0]:g} to {RANGE[1]:g}; scale it"
        raise error(reason, name)
