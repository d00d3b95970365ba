"""Approximate duals of tiles by block coordinate descent on the dual function, in torch.

The dual function of a tile is `D(u, v) = n sum u_i + n_out sum v_j + sum_ij max(0, w_ij - u_i - v_j)`. For fixed `v`,
every `u_i` between the n-th and the (n+1)-th largest of `w_ij - v_j` minimises it; likewise for columns. Midpoints,
with over-relaxation of the columns, move both into the interior of the optimal face, so that few sweeps give a tight
bound.

Tensors have tiles along the last axis: `[R, C, T]`, with `u` `[R, T]` and `v` `[C, T]`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from masksmith.patterns import TileSpec

OVER_RELAXATION = 1.5
SWEEPS = 16


def sweep_duals(
    scores: torch.Tensor, tile: TileSpec, sweeps: int = SWEEPS, v: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise the dual function by alternating midpoint updates.

    Args:
        scores: `[R, C, T]` float64.
        tile: Budgets; at-most budgets keep the duals non-negative.
        sweeps: Number of updates of rows and columns.
        v: `[C, T]` initial column duals; zero if None.

    Returns:
        Row duals `[R, T]` and column duals `[C, T]`.
    """
    if not tile.at_most:
        return _sweep(scores, tile, sweeps, v)
    if v is None and tile.rows * tile.row_keep == tile.cols * tile.col_keep:
        # Projected descent converges slowly; the duals of exact fill, shifted to equal minima, are a good start.
        u, v = _sweep(scores, replace(tile, at_most=False), sweeps, None)
        v = (v + (u.amin(0) - v.amin(0)) / 2).clamp_(min=0.0)
        sweeps = sweeps // 2
    return _sweep(scores, tile, sweeps, v)


def _sweep(
    scores: torch.Tensor, tile: TileSpec, sweeps: int, v: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    columns = scores.new_zeros(scores.shape[1:]) if v is None else v
    for sweep in range(sweeps):
        rows = _midpoints((scores - columns).transpose(0, 1), tile.row_keep, tile.at_most)
        target = _midpoints(scores - rows[:, None], tile.col_keep, tile.at_most)
        over_relax = sweep not in (0, sweeps - 1)
        columns = columns + OVER_RELAXATION * (target - columns) if over_relax else target
        columns = columns.clamp_(min=0.0) if tile.at_most else columns
    return _midpoints((scores - columns).transpose(0, 1), tile.row_keep, tile.at_most), columns


def dual_value(scores: torch.Tensor, tile: TileSpec, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `D(u, v)`: `[T]`, an upper bound on the score of any allowed mask."""
    excess = (scores - u[:, None] - v).clamp_(min=0.0).sum((0, 1))
    return tile.row_keep * u.sum(0) + tile.col_keep * v.sum(0) + excess


def duality_gap(
    scores: torch.Tensor, mask: torch.Tensor, tile: TileSpec, u: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Return the duality gap of masks `[R, C, T]`: `[T]`, `D(u, v)` minus the score kept, as a sum of violations."""
    reduced = scores - u[:, None] - v
    total = torch.where(mask, -reduced, reduced).clamp_(min=0.0).sum((0, 1))
    if tile.at_most:
        total += (u * (tile.row_keep - mask.sum(1))).sum(0) + (v * (tile.col_keep - mask.sum(0))).sum(0)
    return total


def _midpoints(entries: torch.Tensor, keep: int, at_most: bool) -> torch.Tensor:
    """Return the midpoint of the `keep`-th largest and the next along axis 0: `[M, L, T]` to `[L, T]`."""
    m = entries.shape[0]
    if keep == m:
        return torch.zeros_like(entries[0]) if at_most else entries.amin(0)
    wires = list(entries.unbind(0))
    for low, high in selection_network(m, keep):
        wires[low], wires[high] = torch.maximum(wires[low], wires[high]), torch.minimum(wires[low], wires[high])
    midpoint = (wires[keep - 1] + wires[keep]) / 2
    return midpoint.clamp_(min=0.0) if at_most else midpoint


@cache
def selection_network(m: int, keep: int) -> tuple[tuple[int, int], ...]:
    """Return comparators that move the `keep`-th largest of `m` values and the next to indices `keep - 1` and `keep`.

    A comparator is `(index of the larger, index of the smaller)`.

    This is Batcher's odd-even merge sort, without the comparators that neither of the two outputs depends on.
    """
    needed, chosen = {keep - 1, keep}, []
    for low, high in reversed(_odd_even_merge_sort(m)):
        if low in needed or high in needed:
            needed |= {low, high}
            chosen.append((low, high))
    return tuple(reversed(chosen))


def _odd_even_merge_sort(m: int) -> list[tuple[int, int]]:
    comparators: list[tuple[int, int]] = []
    run = 1
    while run < m:
        reach = run
        while reach >= 1:
            for start in range(reach % run, m - reach, 2 * reach):
                lows = range(start, min(start + reach, m - reach))
                comparators += [(a, a + reach) for a in lows if a // (2 * run) == (a + reach) // (2 * run)]
            reach //= 2
        run *= 2
    return comparators
