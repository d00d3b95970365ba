"""Compare two masks files: count the entries that differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from masksmith_client._errors import InputError

from .masks import Masks

STRIP_ENTRIES = 2**20
"""Maximum number of entries of a mask that are compared at once, unless one row has more."""


@dataclass(frozen=True, slots=True)
class MaskChange:
    """Differences between two masks of one tensor.

    Attributes:
        name, shape: Name and shape of the tensor.
        kept_before, kept_after: Number of entries that the first and the second mask keep.
        added, dropped: Number of entries that only the second mask keeps, and that only the first mask keeps.
    """

    name: str
    shape: tuple[int, ...]
    kept_before: int
    kept_after: int
    added: int
    dropped: int

    @property
    def entries(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.shape)

    @property
    def sad(self) -> int:
        """Sum of absolute differences: the number of entries that differ."""
        return self.added + self.dropped

    @property
    def flip_rate(self) -> float:
        """Share of the entries that differ, in [0, 1]."""
        return self.sad / self.entries if self.entries else 0.0


def compare(before: Masks, after: Masks) -> list[MaskChange]:
    """Compare the masks of the tensors that are in both files, a strip of rows at a time.

    Raises:
        InputError: If a tensor has different shapes in the two files, or no tensor is in both files.
    """
    shared_names = [name for name in before if name in after]
    if not shared_names:
        raise InputError("the files have no tensor name in common")
    for name in shared_names:
        if before.shape(name) != after.shape(name):
            raise InputError(
                f"{name!r} has shape {list(before.shape(name))} in one file, {list(after.shape(name))} in the other"
            )
    return [_compare(name, before, after) for name in shared_names]


def _compare(name: str, before: Masks, after: Masks) -> MaskChange:
    shape = before.shape(name)
    rows, cols = math.prod(shape[:-1]), (shape or (1,))[-1]
    step = max(1, STRIP_ENTRIES // max(1, cols))
    totals = np.zeros(4, np.int64)
    for first in range(0, rows if cols else 0, step):
        span = (name, first, min(first + step, rows))
        old, new = before.rows(*span), after.rows(*span)
        totals += [np.count_nonzero(part) for part in (old, new, new & ~old, old & ~new)]
    return MaskChange(name, shape, *(int(total) for total in totals))
