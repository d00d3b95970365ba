"""Estimates the seconds of shards by a fixed model, which decides how tensors are cut and which shards are long.

The model depends on the job alone, so that equal jobs are cut equally and their results can be reused. Its constants
are those of one core of a server (`docs/benchmarks/updates.md`, `patterns.md`). When keys share workers, the estimates
are corrected by the seconds that a job's finished shards took (`lua/_scheduling.lua`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from masksmith.layouts import Layout
from masksmith_wire.specification import JobSpecification

TARGET_S = 5.0
"""Target of the seconds of a shard, without `OVERHEAD_S`; a shard that is expected to take longer has `is_long`.

Such a shard cannot be cut further, or each of its parts would have to read a large Gram matrix.
"""
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
    specification: JobSpecification, shape: Sequence[int], rows: int, layout: Layout | None = None
) -> float:
    """Seconds that a shard is expected to take, without those for reading a Gram matrix (`GRAM_S`).

    Args:
        specification: The job's specification.
        shape: Shape of the tensor.
        rows: Number of the shard's rows, along the tensor's first dimension.
        layout: How the tensor is made of matrices; None if it is one matrix `[out, in]` or a convolution.
    """
    entries = rows * math.prod(shape[1:])
    out, *inputs = shape if layout is None else layout.matrix_shape(shape)
    cols = math.prod(inputs)
    matrix_rows = entries // max(1, cols)
    seconds = SEARCH_S * entries
    if specification.update is not None:
        seconds += UPDATE_S[specification.update.name] * matrix_rows * cols**2
    if specification.options.spectrum:
        seconds += SPECTRUM_S * entries * min(out, cols)
    return OVERHEAD_S + seconds
