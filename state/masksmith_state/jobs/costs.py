"""Estimates the seconds of shards by a fixed model.

The estimates decide how tensors are cut, which shards are long, and how much a key is charged for a shard. The model
depends on the job alone, so that equal jobs are cut equally and their results can be reused. Its constants are those of
one core of a server (`docs/benchmarks/updates.md`, `patterns.md`). Only what is charged is corrected later, by the
seconds that the finished shards of the job took (`lua/_scheduling.lua`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from masksmith.layouts import Layout
from masksmith_wire.specification import JobSpecification

TARGET_S = 5.0
"""Target of the seconds of a shard, without `OVERHEAD_S`. A shard that is expected to take longer has `is_long` set.

Such a shard either cannot be cut further, or is left whole on purpose: it needs a large Gram matrix, which each part
would have to read again.
"""
OVERHEAD_S = 0.02
"""Seconds per shard, besides those below."""
SEARCH_S = 5e-8
"""Seconds per entry: read, score, search and store."""
UPDATE_S = {"reconstruct": 2e-9, "admm": 6e-9}
"""For each update, seconds per unit of rows x columns^2 of a matrix."""
GRAM_S = 1.8e-8
"""Seconds per byte of a large Gram matrix: read and scale it, and bound its eigenvalues, once for each shard."""
SPECTRUM_S = 2e-9
"""Seconds per unit of entries x shorter side of a matrix, to compute its singular values."""


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
