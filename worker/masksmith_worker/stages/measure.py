"""Measures of a shard: what its mask counts towards the tensor's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import masksmith as ms
from masksmith import measures
from masksmith_state.blobs.store import BlobStore, result_name
from masksmith_state.jobs.model import ShardReport
from masksmith_state.jobs.shards import BLOCK_ROWS, MaskPart, PlannedTensor, Shard
from masksmith_wire import masks
from masksmith_wire.documents import DiversityReport, SpectrumReport


class PreviousGoneError(Exception):
    """The previous mask is not in the store any more."""


def measure(tensor: PlannedTensor, shard: Shard, solution: ms.Solution, weight: npt.NDArray[Any] | None) -> Any:
    """Give what a shard's report says beyond its scores; singular values if the weight is given, all of it."""
    counts = measures.count(solution.mask, (BLOCK_ROWS, BLOCK_ROWS))
    whole = shard.first % BLOCK_ROWS == 0 and (shard.last % BLOCK_ROWS == 0 or shard.last == tensor.shape[0])
    return {
        "blocks": counts.blocks if whole else None,
        "two_four": counts.is_two_four,
        "diversity": _diversity(solution.pattern) if shard.first == 0 else None,
        "spectrum": None if weight is None else _spectrum(weight, solution.mask),
    }


def compare(store: BlobStore, tensor: PlannedTensor, shard: Shard, report: ShardReport) -> ShardReport:
    """Count what changed against the tensor's previous mask.

    Raises:
        PreviousGoneError: If that mask is gone.
    """
    if tensor.previous is None or report.result is None:
        return report
    shape = (shard.last - shard.first, *tensor.shape[1:])
    now = np.frombuffer(store.get(result_name(report.result)), np.uint8).reshape(shape[0], -1)
    try:
        before = np.concatenate([*_rows(store, tensor.previous, shard, shape)])
    except FileNotFoundError:
        raise PreviousGoneError from None
    added, dropped = (int(np.bitwise_count(bits).sum(dtype=np.int64)) for bits in (now & ~before, before & ~now))
    return report.model_copy(update={"added": added, "dropped": dropped})


def _rows(
    store: BlobStore, parts: list[MaskPart], shard: Shard, shape: tuple[int, ...]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Read the shard's rows of a stored mask, as bits."""
    for part in parts:
        first, last = max(part.first, shard.first), min(part.last, shard.last)
        if first >= last:
            continue
        width = int(np.prod(shape[1:-1])) * (shape[-1] if part.is_bool else masks.packed_width(shape))
        start, stop = (part.start + (row - part.first) * width for row in (first, last))
        found = np.frombuffer(store.get_range(part.blob, start, stop), np.uint8)
        if part.is_bool:
            found = masks.pack(found.reshape(last - first, *shape[1:]) != 0)
        yield found.reshape(last - first, -1)


def _diversity(pattern: ms.Pattern) -> DiversityReport | None:
    if not isinstance(pattern, ms.NM):
        return None
    found = ms.diversity(pattern)
    return DiversityReport(
        rows=found.rows,
        cols=found.cols,
        count=None if found.count is None else str(found.count),
        log2_count=found.log2_count,
        bits_per_weight=found.bits_per_weight,
        method=found.method,
        log2_published=found.log2_published,
    )


def _spectrum(weight: npt.NDArray[Any], mask: Any) -> SpectrumReport:
    found = measures.spectrum(weight, mask)
    return SpectrumReport(least=found.least, mean=found.mean, most=found.most)
