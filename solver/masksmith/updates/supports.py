"""Selects the rows of a mask whose supports are factorised, and divides rows into batches of bounded memory.

The support of a row is the set of its kept entries. Rows with the same support share a Cholesky factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BATCH_BYTES = 2**26
"""Maximum size of the restricted Gram matrices and right sides of a batch, in bytes; see `_byte_count`."""

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
"""A support of k of n inputs that r rows share is factorised if k^3 is at most this number times r n^2.

The number was chosen by measurement.
"""


def is_factorised(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Estimate, for each row of a mask, whether factorising its support costs less than conjugate gradients."""
    support_index, row_counts = _index_supports(mask)
    kept_cubed = mask.sum(1, dtype=np.int64).astype(float) ** 3
    is_cheap: npt.NDArray[np.bool_] = kept_cubed <= FACTORISED_BELOW * row_counts[support_index] * mask.shape[1] ** 2
    return is_cheap


def batches(mask: npt.NDArray[np.bool_], budget_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Group the rows of a mask `[out, inputs]` by equal support, and the groups into batches of bounded size.

    Every row is in exactly one batch. `budget_bytes` limits the restricted Gram matrices and right sides of a batch,
    unless one support needs more. With the factors and temporary arrays, a batch takes up to about 4 times as much.
    """
    groups = _groups(mask, max(1, budget_bytes // (8 * mask.shape[1])))
    kept_counts = mask.sum(1)
    groups.sort(key=lambda rows: (len(rows), kept_counts[rows[0]]))
    pending: list[Rows] = []
    for rows in groups:
        # Groups of one length are sorted by their number of kept entries, so this support is the largest of the batch.
        batch_bytes = (len(pending) + 1) * _byte_count(int(kept_counts[rows[0]]), len(rows), mask)
        if pending and (len(rows) != len(pending[0]) or batch_bytes > budget_bytes):
            yield _batch(pending, kept_counts)
            pending = []
        pending.append(rows)
    yield _batch(pending, kept_counts)


def _groups(mask: npt.NDArray[np.bool_], max_length: int) -> list[Rows]:
    """Return the rows of each distinct support, split into groups of at most `max_length`."""
    support_index, _ = _index_supports(mask)
    order = np.argsort(support_index, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(support_index[order])) + 1)
    return [rows[start : start + max_length] for rows in groups for start in range(0, len(rows), max_length)]


def _index_supports(mask: npt.NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Give each distinct support an index.

    Returns:
        The index of each row's support, `[rows]`, and the number of rows that have each support, `[supports]`.
    """
    packed = np.ascontiguousarray(np.packbits(mask, axis=1))
    _, support_index, row_counts = np.unique(
        packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True, return_counts=True
    )
    return support_index, row_counts


def _byte_count(kept: int, group_size: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return the size in bytes of a support's restricted Gram matrix and of its rows' right sides, in float64."""
    return 8 * (kept * kept + group_size * int(mask.shape[1]))


def _batch(groups: list[Rows], kept_counts: npt.NDArray[np.int64]) -> Batch:
    return Batch(np.stack(groups), int(max(kept_counts[rows[0]] for rows in groups)))
