"""Certificate on the device: objective, violation, total score and legality of every tile, from its mask and duals.

It shares no code with the solver, except for reading scores. Objective + violation is an upper bound on the objective
of any allowed mask of the tile. Since the kernel reads every entry, it also writes the pruned weight and the packed
mask, if there is a weight.

One thread handles one column of a tile row, so that reads are coalesced. The sum u + v is error-free (Knuth's TwoSum),
every sign is exact, and violations are rounded up: see `kernels.certificate.tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel

EPSILON = 2.0**-52
THREADS = 256
"""Largest number of threads per block."""


@device
def _entry_violation(w: float, u: float, v: float, keep: bool) -> float:
    """Return by how much an entry violates complementary slackness: exactly 0.0 if it does not, else rounded up.

    The values are those of `kernels.certificate.tiles`, which subtracts the rounding error of u + v before it tests the
    sign. Here that error decides only where the rounded sum equals w: it is too small to change any other sign.
    """
    total = u + v
    part = total - u
    error = (u - (total - part)) + (v - part)
    rest = w - total
    if rest == 0.0:
        return max(0.0, error if keep else -error)
    if (rest < 0.0) != keep:
        return 0.0
    return max(0.0, -rest if keep else rest) + abs(error)


@device
def _kept_in_row(mask: Any, i: int, j: int, cols: int) -> int:
    """Return the number of kept entries among the `cols` entries of row i from column j on."""
    kept = 0
    for step in range(cols):
        kept += mask[i, j + step] != 0
    return kept


@device
def _unfilled_violation(dual: float, kept: int, budget: int) -> float:
    """Return how much the dual of a row or column with an at-most budget violates complementary slackness.

    A row or column that keeps fewer entries than its budget must have a dual of 0; negative duals are taken as 0.
    """
    return max(0.0, dual) * (budget - kept) if kept < budget else 0.0


@device
def _write_outputs(weight: Any, mask: Any, i: int, j: int, pruned: Any, packed: Any) -> None:
    """Write entry (i, j) of the pruned weight, and for every eighth column a byte of the packed mask."""
    if i >= pruned.shape[0] or j >= pruned.shape[1]:
        return
    pruned[i, j] = weight[i, j] if mask[i, j] != 0 else 0
    if j % 8 == 0:
        byte = 0
        for k in range(min(8, pruned.shape[1] - j)):
            byte |= (mask[i, j + k] != 0) << k
        packed[i, j // 8] = byte


@cache
def compile_certificate(element: str) -> Any:
    """Compile the kernel: blocks of `THREADS // cols * cols` threads, as many for each tile row as its columns need.

    The grid has one dimension, since the others are limited to 65,535 blocks.

    Arguments: `scores` [height, width]; `mask` [down * rows, across * cols]; `forced` as `mask`, or empty;
    `row_duals`, `col_duals` [down * across, rows or cols]; `weight` as `scores`, or empty; written: `objective`,
    `violation`, `total` (sum of scores), `legal` [down * across], and `pruned`, `packed` (see `Band`), unless empty.
    """
    read = reader(element)
    float64, int32 = cuda.types.float64, cuda.types.int32

    def run(
        scores: Any, mask: Any, forced: Any, rows: int, cols: int, row_keep: int, col_keep: int, at_most: bool,
        row_duals: Any, col_duals: Any, across: int, objective: Any, violation: Any, total: Any, legal: Any,
        weight: Any, pruned: Any, packed: Any,
    ) -> None:  # fmt: skip
        kept_sums = cuda.shared.array(THREADS, float64)
        violations = cuda.shared.array(THREADS, float64)
        total_sums = cuda.shared.array(THREADS, float64)
        legal_flags = cuda.shared.array(THREADS, int32)
        blocks_across = (across * cols + cuda.blockDim.x - 1) // cuda.blockDim.x
        tile_row, block = cuda.blockIdx.x // blocks_across, cuda.blockIdx.x % blocks_across
        thread, top, column = cuda.threadIdx.x, tile_row * rows, block * cuda.blockDim.x + cuda.threadIdx.x
        inside, tile_col, c = column < across * cols, column // cols, column % cols
        t = tile_row * across + tile_col
        kept_score, violation_sum, total_score, kept_in_col, is_legal = 0.0, 0.0, 0.0, 0, 1
        if inside:
            v = max(0.0, col_duals[t, c]) if at_most else col_duals[t, c]
            for r in range(rows):
                w, keep = 0.0, mask[top + r, column] != 0
                if top + r < scores.shape[0] and column < scores.shape[1]:
                    w = float(read(scores, top + r, column))
                u = max(0.0, row_duals[t, r]) if at_most else row_duals[t, r]
                if not (forced.size and forced[top + r, column] != 0):
                    violation_sum += _entry_violation(w, u, v, keep)
                if pruned.size:
                    _write_outputs(weight, mask, top + r, column, pruned, packed)
                kept_score += w if keep else 0.0
                total_score += w
                kept_in_col += keep
            is_legal = kept_in_col == col_keep or (at_most and kept_in_col < col_keep)
            if at_most:
                violation_sum += _unfilled_violation(v, kept_in_col, col_keep)
            # The threads of a tile divide its rows among them: this one checks rows c, c + cols, ...
            for r in range(c, rows, cols):
                kept = _kept_in_row(mask, top + r, tile_col * cols, cols)
                is_legal = is_legal and (kept == row_keep or (at_most and kept < row_keep))
                if at_most:
                    violation_sum += _unfilled_violation(row_duals[t, r], kept, row_keep)
        kept_sums[thread], violations[thread], total_sums[thread], legal_flags[thread] = (
            kept_score,
            violation_sum,
            total_score,
            is_legal,
        )
        cuda.syncthreads()
        if inside and c == 0:
            for other in range(thread + 1, thread + cols):
                kept_score, violation_sum, total_score = (
                    kept_score + kept_sums[other],
                    violation_sum + violations[other],
                    total_score + total_sums[other],
                )
                is_legal = is_legal and legal_flags[other]
            objective[t], total[t], legal[t] = kept_score, total_score, is_legal
            # Rounded up, so that the bound holds: the factor exceeds the relative rounding error of the terms and of
            # their sum, and no term is negative.
            violation[t] = violation_sum * (1.0 + EPSILON * (2 * rows * cols + 16))

    return kernel(run)
