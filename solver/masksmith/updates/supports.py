"""Which rows of a mask share a factorisation, and how many go through memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BATCH_BYTES = 2**26
"""Bytes of Gram matrices, restricted to the rows' supports, that are held at a time."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Supports that are factored side by side, each with equally many rows.

    Attributes:
        rows: `[supports, each]`, rows of the mask.
        kept: The largest number of entries that a support keeps.
    """

    rows: Rows
    kept: int


def batches(mask: npt.NDArray[np.bool_], budget_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Group the rows of a mask `[out, inputs]` by equal support, and the groups into batches of bounded size.

    Every row is in one batch. A batch takes about `4 * budget_bytes` at most, unless a single support needs more.
    """
    groups = _groups(mask, max(1, budget_bytes // (8 * mask.shape[1])))
    kept = mask.sum(1)
    groups.sort(key=lambda rows: (len(rows), kept[rows[0]]))
    ahead: list[Rows] = []
    for rows in groups:
        size = int(kept[rows[0]])
        if ahead and (len(rows) != len(ahead[0]) or (len(ahead) + 1) * _bytes(size, len(rows), mask) > budget_bytes):
            yield _batch(ahead, kept)
            ahead = []
        ahead.append(rows)
    yield _batch(ahead, kept)


def _groups(mask: npt.NDArray[np.bool_], longest: int) -> list[Rows]:
    """Give the rows of each distinct support, at most `longest` at a time."""
    packed = np.ascontiguousarray(np.packbits(mask, axis=1))
    _, which = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)
    order = np.argsort(which, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(which[order])) + 1)
    return [rows[start : start + longest] for rows in groups for start in range(0, len(rows), longest)]


def _bytes(kept: int, each: int, mask: npt.NDArray[np.bool_]) -> int:
    return 8 * (kept * kept + each * int(mask.shape[1]))


def _batch(groups: list[Rows], kept: npt.NDArray[np.int64]) -> Batch:
    return Batch(np.stack(groups), int(max(kept[rows[0]] for rows in groups)))
