"""Estimates the seconds of shards by a fixed model, which decides how tensors are cut and which shards are long.

The model depends on the job alone, so that equal jobs are cut equally and their results can be reused. Its constants
are those of one core of a server (`docs/benchmarks/updates.md`, `patterns.md`). What a job's shards really took
corrects the estimates where keys share workers (`lua/_scheduling.lua`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from masksmith_wire.specification import JobSpecification

TARGET_S = 5.0
"""Target of the seconds of a shard; a shard that takes longer, because it cannot be cut further, is `long`."""
OVERHEAD_S = 0.02
"""Per shard."""
SEARCH_S = 5e-8
"""Per entry: read, score, search and store."""
UPDATE_S = {"reconstruct": 2e-9, "admm": 6e-9}
"""Per row and square of the number of columns."""
GRAM_S = 1.8e-8
"""Per byte of a large Gram matrix: read and scale it, and bound its eigenvalues, once for each shard."""
SPECTRUM_S = 2e-9
"""Per entry and length of the shorter side."""


def estimated_seconds(
    specification: JobSpecification, shape: Sequence[int], rows: int, *, is_stack: bool = False
) -> float:
    """Seconds that a shard is expected to take.

    Args:
        specification: The job's specification.
        shape: Shape of the tensor.
        rows: Number of its rows, along the first dimension.
        is_stack: Whether each of these rows is a matrix.
    """
    entries = rows * math.prod(shape[1:])
    cols = shape[-1] if is_stack else math.prod(shape[1:])
    lines = entries // max(1, cols)
    seconds = SEARCH_S * entries
    if specification.update is not None:
        seconds += UPDATE_S[specification.update.name] * lines * cols**2
    if specification.options.spectrum:
        seconds += SPECTRUM_S * entries * min(lines, cols)
    return OVERHEAD_S + seconds
