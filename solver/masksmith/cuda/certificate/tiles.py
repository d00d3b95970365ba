"""The checker on the device: objective and bound of every tile from the duals alone, sharing no code with the solver.

It reads every entry once more, so it also writes what was asked for beside the mask: the pruned weight, and bits.

A thread walks down one column of a tile row, so that neighbours read neighbouring scores; u + v is formed error-free
(Knuth's TwoSum), every sign is exact, and sums on the wrong side are rounded up: see `kernels.certificate.tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel

EPSILON = 2.0**-52
THREADS = 256


@device
def _loss(w: float, u: float, v: float, keep: bool) -> float:
    """How far an entry is on the wrong side of u + v: exactly 0.0 when it is not, else rounded away from 0."""
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
def _row_used(mask: Any, i: int, j: int, count: int) -> int:
    """Count the kept entries of a tile's row, which begins at (i, j)."""
    used = 0
    for step in range(count):
        used += mask[i, j + step] != 0
    return used


@device
def _unused(price: float, used: int, keep: int) -> float:
    return max(0.0, price) * (keep - used) if used < keep else 0.0


@device
def _emit(weight: Any, mask: Any, i: int, j: int, pruned: Any, packed: Any) -> None:
    """Write the entry (i, j) of the pruned weight, and with every eighth one a byte of the mask."""
    if i >= pruned.shape[0] or j >= pruned.shape[1]:
        return
    pruned[i, j] = weight[i, j] if mask[i, j] != 0 else 0
    if j % 8 == 0:
        byte = 0
        for k in range(min(8, pruned.shape[1] - j)):
            byte |= (mask[i, j + k] != 0) << k
        packed[i, j // 8] = byte


@cache
def certificate(element: str) -> Any:
    """Make the kernel: blocks of `THREADS // cols * cols` threads side by side, one row of blocks a row of tiles."""
    read = reader(element)
    float64, int32 = cuda.types.float64, cuda.types.int32

    def run(
        scores: Any, mask: Any, forced: Any, rows: int, cols: int, row_keep: int, col_keep: int, at_most: bool,
        row_duals: Any, col_duals: Any, across: int, objective: Any, violation: Any, total: Any, legal: Any,
        weight: Any, pruned: Any, packed: Any,
    ) -> None:  # fmt: skip
        scored = cuda.shared.array(THREADS, float64)
        wrong = cuda.shared.array(THREADS, float64)
        summed = cuda.shared.array(THREADS, float64)
        fine = cuda.shared.array(THREADS, int32)
        here, top = cuda.threadIdx.x, cuda.blockIdx.y * rows
        column = cuda.blockIdx.x * cuda.blockDim.x + here
        inside, side, c = column < across * cols, column // cols, column % cols
        t = cuda.blockIdx.y * across + side
        value, loss, whole, count, good = 0.0, 0.0, 0.0, 0, 1
        if inside:
            v = max(0.0, col_duals[t, c]) if at_most else col_duals[t, c]
            for r in range(rows):
                w, keep = 0.0, mask[top + r, column] != 0
                if top + r < scores.shape[0] and column < scores.shape[1]:
                    w = float(read(scores, top + r, column))
                u = max(0.0, row_duals[t, r]) if at_most else row_duals[t, r]
                if not (forced.size and forced[top + r, column] != 0):
                    loss += _loss(w, u, v, keep)
                if pruned.size:
                    _emit(weight, mask, top + r, column, pruned, packed)
                value += w if keep else 0.0
                whole += w
                count += keep
            good = count == col_keep or (at_most and count < col_keep)
            if at_most:
                loss += _unused(v, count, col_keep)
            for r in range(c, rows, cols):
                used = _row_used(mask, top + r, side * cols, cols)
                good = good and (used == row_keep or (at_most and used < row_keep))
                if at_most:
                    loss += _unused(row_duals[t, r], used, row_keep)
        scored[here], wrong[here], summed[here], fine[here] = value, loss, whole, good
        cuda.syncthreads()
        if inside and c == 0:
            for other in range(here + 1, here + cols):
                value, loss, whole = value + scored[other], loss + wrong[other], whole + summed[other]
                good = good and fine[other]
            objective[t], total[t], legal[t] = value, whole, good
            violation[t] = loss * (1.0 + EPSILON * (2 * rows * cols + 16))

    return kernel(run)
