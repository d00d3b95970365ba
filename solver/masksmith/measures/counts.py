"""Counts the kept entries of a mask, and the blocks that contain kept entries, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader, read_dense
from masksmith.layouts import Layout
from masksmith.patterns import Hybrid, HybridCounts, MaskCounts, Pattern, matrix_shape

STRIP_ENTRIES = 2**20
"""Maximum number of entries of a strip; but a strip has at least `multiple` rows, see `strips`."""
_BYTES = np.arange(256, dtype=np.uint8)
_IS_TWO_FOUR = (np.bitwise_count(_BYTES & 15) <= 2) & (np.bitwise_count(_BYTES >> 4) <= 2)
"""Lookup table: whether each half of a byte of mask bits has at most 2 set bits."""


def count(
    mask: Any, block: tuple[int, int] = (16, 16), layout: Layout | None = None, pattern: Pattern | None = None
) -> MaskCounts:
    """Count the kept entries of a mask and the blocks that contain kept entries; find out whether the mask is 2:4.

    With a layout, the counts are those of all matrices of the tensor together.

    Args:
        mask: Bool array or tensor in the weight's shape, True = kept.
        block: Rows and columns of the blocks to count.
        layout: How the tensor is made of matrices, if it is not one `[out, in]` or a convolution.
        pattern: Pattern of the mask; for a hybrid pattern, the result includes the counts of `count_hybrid`.

    Raises:
        ScoresError: If the mask's dtype is not supported.
        PatternError: If the mask's shape is not that of a weight, or a hybrid pattern does not fit it.
        ValueError: If a side of the block is not positive.
    """
    if min(block) < 1:
        raise ValueError(f"block={block} must have positive sides")
    if isinstance(pattern, Hybrid):
        return replace(count(mask, block, layout), hybrid=count_hybrid(mask, pattern, layout))
    if layout is not None:
        counts = [count(matrix, block) for matrix in layout.matrices(read_dense(mask, "mask"))]
        rows, kept = sum(each.rows for each in counts), sum(each.kept for each in counts)
        blocks = sum(each.blocks or 0 for each in counts)
        return MaskCounts(rows, counts[0].cols, kept, block, blocks, all(each.is_two_four for each in counts))
    source = MatrixReader(mask, name="mask")
    rows, cols = matrix_shape(source.shape)
    kept = blocks = 0
    is_two_four = True
    for strip in strips(source, block[0]):
        bits = np.packbits(strip, axis=1, bitorder="little")
        kept += int(np.bitwise_count(bits).sum(dtype=np.int64))
        is_two_four = is_two_four and bool(_IS_TWO_FOUR[bits].all())
        # If blocks consist of whole bytes of the packed mask, their bytes are tested instead of their bits.
        blocks += _count_blocks(bits, (block[0], block[1] // 8)) if block[1] % 8 == 0 else _count_blocks(strip, block)
    return MaskCounts(rows, cols, kept, block, blocks, is_two_four)


def count_hybrid(mask: Any, pattern: Hybrid, layout: Layout | None = None) -> HybridCounts:
    """Count the values and index bits that a kernel for dense and n:m blocks stores for the entries that a mask keeps.

    Blocks that are kept entirely are stored as dense ones.

    Args:
        mask: Bool array or tensor in the weight's shape, allowed by the pattern.
        pattern: The pattern; its grid of blocks restarts at each matrix, and at each range of rows that is solved
            separately.
        layout: How the tensor is made of matrices, if it is not one `[out, in]` or a convolution.

    Raises:
        PatternError: If the pattern does not fit the shape.
    """
    if layout is None:
        return _count_matrix(mask, pattern)
    mask = read_dense(mask, "mask")
    ranges = layout.row_ranges(pattern, tuple(mask.shape))
    parts = [matrix[first:last] for matrix in layout.matrices(mask) for first, last in ranges]
    counts = [_count_matrix(part, pattern) for part in parts]
    return HybridCounts(
        sum(each.blocks for each in counts),
        sum(each.values for each in counts),
        sum(each.index_bits for each in counts),
    )


def _count_matrix(mask: Any, pattern: Hybrid) -> HybridCounts:
    source, inner = MatrixReader(mask, name="mask"), pattern.inner
    grid = pattern.grid(source.shape)
    lefts = np.arange(0, grid.cols, pattern.cols)
    widths = np.diff(lefts, append=grid.cols)
    compressed_widths = -(-widths // inner.m) * inner.n
    dense_values = compressed_values = 0
    for first in range(0, grid.rows, pattern.rows):
        rows = source.rows(first, min(first + pattern.rows, grid.rows)) != 0
        is_dense = np.logical_and.reduceat(rows.all(axis=0), lefts)
        dense_values += len(rows) * int(widths[is_dense].sum())
        compressed_values += len(rows) * int(compressed_widths[~is_dense].sum())
    index_bits = compressed_values * (inner.m - 1).bit_length()
    return HybridCounts(grid.tiles, dense_values + compressed_values, index_bits)


def strips(source: MatrixReader, multiple: int = 1) -> Iterator[Bools]:
    """Yield a mask's rows as bool matrices; the height of all but the last is a multiple of `multiple`."""
    rows, cols = matrix_shape(source.shape)
    step = max(1, STRIP_ENTRIES // (cols * multiple)) * multiple
    for first in range(0, rows, step):
        yield source.rows(first, min(first + step, rows)) != 0


def _count_blocks(strip: npt.NDArray[Any], block: tuple[int, int]) -> int:
    """Count the blocks of a strip that have a non-zero entry."""
    down = np.bitwise_or.reduceat(strip, np.arange(0, strip.shape[0], block[0]), axis=0)
    across = np.bitwise_or.reduceat(down, np.arange(0, strip.shape[1], block[1]), axis=1)
    return int(np.count_nonzero(across))
