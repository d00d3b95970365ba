"""Divides the rows of a mask into batches of bounded memory; rows with the same support share a Cholesky factor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BATCH_BYTES = 2**26
"""Limit of the bytes of a batch that `_bytes` counts: restricted Gram matrices and right sides."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Supports that are factorised together; each of them is shared by the same number of rows.

    Attributes:
        rows: `[supports, rows that share each support]`, indices of rows of the mask.
        max_kept: Number of kept entries of the largest support.
    """

    rows: Rows
    max_kept: int


FACTORISED_BELOW = 6.0
"""A support of k of n inputs that r rows share is factorised if k^3 is at most this number times r n^2; measured."""


def is_factorised(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return, for each row of a mask, whether a factorisation of its support costs less than conjugate gradients."""
    factorised = np.empty(len(mask), bool)
    for rows in _groups(mask, len(mask)):
        kept = int(np.count_nonzero(mask[rows[0]]))
        factorised[rows] = kept**3 <= FACTORISED_BELOW * len(rows) * mask.shape[1] ** 2
    return factorised


def batches(mask: npt.NDArray[np.bool_], budget_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Group the rows of a mask `[out, inputs]` by equal support, and the groups into batches of bounded size.

    Every row is in exactly one batch. `budget_bytes` limits the restricted Gram matrices and right sides of a batch,
    unless one support needs more. With the factors and temporary arrays, a batch takes up to about 4 times as much.
    """
    groups = _groups(mask, max(1, budget_bytes // (8 * mask.shape[1])))
    kept = mask.sum(1)
    groups.sort(key=lambda rows: (len(rows), kept[rows[0]]))
    pending: list[Rows] = []
    for rows in groups:
        # Groups are sorted, so this support is the largest one of the batch.
        batch_bytes = (len(pending) + 1) * _bytes(int(kept[rows[0]]), len(rows), mask)
        if pending and (len(rows) != len(pending[0]) or batch_bytes > budget_bytes):
            yield _batch(pending, kept)
            pending = []
        pending.append(rows)
    yield _batch(pending, kept)


def _groups(mask: npt.NDArray[np.bool_], max_length: int) -> list[Rows]:
    """Return the rows of each distinct support, split into groups of at most `max_length`."""
    packed = np.ascontiguousarray(np.packbits(mask, axis=1))
    _, support_of = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)
    order = np.argsort(support_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(support_of[order])) + 1)
    return [rows[start : start + max_length] for rows in groups for start in range(0, len(rows), max_length)]


def _bytes(kept: int, group_size: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return the bytes of a support's restricted Gram matrix and of its rows' right sides, in float64."""
    return 8 * (kept * kept + group_size * int(mask.shape[1]))


def _batch(groups: list[Rows], kept: npt.NDArray[np.int64]) -> Batch:
    return Batch(np.stack(groups), int(max(kept[rows[0]] for rows in groups)))
