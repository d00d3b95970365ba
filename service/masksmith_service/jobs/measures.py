"""Sums the measures of a tensor's shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masksmith.layouts import ITEM_BYTES
from masksmith.patterns import MaskCounts, Pattern, capacity, matrix_shape, storage
from masksmith_state.jobs.certificates import change
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import BLOCK_ROWS, PlannedTensor


def sum_measures(tensor: PlannedTensor, parts: Sequence[ShardReport], pattern: Pattern) -> dict[str, Any]:
    """Sum the measures of a tensor's shards, all of which are done."""
    shapes = [tuple(tensor.shape)] if tensor.layout is None else tensor.layout.part_shapes(pattern, tensor.shape)
    rows, cols = sum(shape[0] for shape in shapes), matrix_shape(shapes[0])[1]
    kept, blocks = sum(part.kept for part in parts), [part.blocks for part in parts]
    counts = MaskCounts(
        rows,
        cols,
        kept,
        (BLOCK_ROWS, BLOCK_ROWS),
        sum(blocks) if None not in blocks else None,  # type: ignore[arg-type]
        all(part.two_four for part in parts),
        parts[0].hybrid,
    )
    return {
        "fill": kept / sum(capacity(pattern, shape) for shape in shapes),
        "storage_bytes": dict(storage(counts, ITEM_BYTES[tensor.dtype])),
        "diversity": parts[0].diversity,
        "change": change(parts, rows * cols),
        "spectrum": parts[0].spectrum,
    }
