"""Two masks files side by side: what changed from one search to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from masksmith_client._errors import InputError

from .masks import Masks

STRIP_ENTRIES = 2**20


@dataclass(frozen=True, slots=True)
class MaskChange:
    """What changed between two masks of one tensor.

    Attributes:
        name, shape: The tensor's.
        kept_before, kept_after: Entries kept.
        added, dropped: Entries that only the second mask keeps, or only the first.
    """

    name: str
    shape: tuple[int, ...]
    kept_before: int
    kept_after: int
    added: int
    dropped: int

    @property
    def entries(self) -> int:
        """Entries in all."""
        return math.prod(self.shape)

    @property
    def sad(self) -> int:
        """Sum of absolute differences: the entries that differ."""
        return self.added + self.dropped

    @property
    def flip_rate(self) -> float:
        """Share of the entries that differ, in [0, 1]."""
        return self.sad / self.entries if self.entries else 0.0


def compare(before: Masks, after: Masks) -> list[MaskChange]:
    """Compare the masks that two files share, a strip of rows at a time.

    Raises:
        InputError: If a tensor has another shape in each, or they share none.
    """
    shared = [name for name in before if name in after]
    if not shared:
        raise InputError("the files share no tensor: no name is in both")
    for name in shared:
        if before.shape(name) != after.shape(name):
            raise InputError(f"{name!r} has shape {list(before.shape(name))} before, {list(after.shape(name))} after")
    return [_compare(name, before, after) for name in shared]


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
