"""Sums the measures of a tensor's shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masksmith.layouts import ITEM_BYTES
from masksmith.patterns import MaskCounts, Pattern, capacity, matrix_shape, storage
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import BLOCK_ROWS, PlannedTensor
from masksmith_wire.documents import ChangeReport


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
        "change": _change(parts, rows * cols),
        "spectrum": parts[0].spectrum,
    }


def _change(parts: Sequence[ShardReport], entries: int) -> ChangeReport | None:
    if any(part.added is None or part.dropped is None for part in parts):
        return None
    added, dropped = sum(part.added or 0 for part in parts), sum(part.dropped or 0 for part in parts)
    return ChangeReport(sad=added + dropped, added=added, dropped=dropped, flip_rate=(added + dropped) / entries)
