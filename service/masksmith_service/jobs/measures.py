"""Combines the measures of a tensor's shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masksmith.layouts import ITEM_BYTES
from masksmith.patterns import MaskCounts, Pattern, capacity, matrix_shape, storage
from masksmith_state.jobs.certificates import change
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import BLOCK_SIDE, PlannedTensor


def combined_measures(tensor: PlannedTensor, reports: Sequence[ShardReport], pattern: Pattern) -> dict[str, Any]:
    """Combine the measures of a tensor's shards, all of which are done; return members of a `TensorReport`.

    `hybrid`, `diversity` and `spectrum` are those of the first shard's report; no other shard has them.
    """
    shapes = [tuple(tensor.shape)] if tensor.layout is None else tensor.layout.part_shapes(pattern, tensor.shape)
    rows, cols = sum(shape[0] for shape in shapes), matrix_shape(shapes[0])[1]
    kept = sum(report.kept for report in reports)
    block_counts = [report.blocks for report in reports if report.blocks is not None]
    counts = MaskCounts(
        rows=rows,
        cols=cols,
        kept=kept,
        block=(BLOCK_SIDE, BLOCK_SIDE),
        blocks=sum(block_counts) if len(block_counts) == len(reports) else None,
        is_two_four=all(report.two_four for report in reports),
        hybrid=reports[0].hybrid,
    )
    return {
        "fill": kept / sum(capacity(pattern, shape) for shape in shapes),
        "storage_bytes": dict(storage(counts, ITEM_BYTES[tensor.dtype])),
        "diversity": reports[0].diversity,
        "change": change(reports, rows * cols),
        "spectrum": reports[0].spectrum,
    }
