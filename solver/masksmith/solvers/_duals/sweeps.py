"""Approximate duals of tiles by block coordinate descent on the dual function, in torch.

The dual function of a tile with scores `w_ij` is
`D(u, v) = row_keep sum_i u_i + col_keep sum_j v_j + sum_ij max(0, w_ij - u_i - v_j)`. Under at-most budgets, no `u_i`
and no `v_j` may be negative. For fixed `v`, every `u_i` between the k-th and the (k+1)-th largest of `w_ij - v_j`
minimises `D`, with k = `row_keep`; for columns, k = `col_keep`. Midpoints, with over-relaxation of the columns, move
`u` and `v` into the interior of the optimal face, so that few sweeps give a tight bound.

Tensors have tiles along the last axis: `[R, C, T]`, with `u` `[R, T]` and `v` `[C, T]`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from masksmith.patterns import TileSpec

OVER_RELAXATION = 1.5
"""How far column duals move towards their midpoints: 1 moves them there, more moves them beyond."""
SWEEPS = 16
"""Number of sweeps, unless the caller gives another."""


def sweep_duals(
    scores: torch.Tensor, tile: TileSpec, sweeps: int = SWEEPS, v: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise the dual function approximately, by alternating midpoint updates.

    Args:
        scores: `[R, C, T]` float64.
        tile: Budgets; at-most budgets keep the duals non-negative.
        sweeps: Number of sweeps, each of which updates the row duals and then the column duals.
        v: `[C, T]` initial column duals. If None, they are zero; but if budgets are at-most and a mask can fill all of
            them, `sweeps` sweeps for exact budgets find the initial duals, and `sweeps // 2` sweeps follow.

    Returns:
        Row duals `[R, T]` and column duals `[C, T]`.
    """
    if not tile.at_most:
        return _run_sweeps(scores, tile, sweeps, v)
    if v is None and tile.rows * tile.row_keep == tile.cols * tile.col_keep:
        # Rows and columns keep the same number of entries, so exact fill is possible. Sweeps that clamp duals to at
        # least 0 converge slowly from zero; the duals of exact fill, shifted so that the minima of u and v are equal,
        # are a good start.
        u, v = _run_sweeps(scores, replace(tile, at_most=False), sweeps, None)
        v = (v + (u.amin(0) - v.amin(0)) / 2).clamp_(min=0.0)
        sweeps = sweeps // 2
    return _run_sweeps(scores, tile, sweeps, v)


def _run_sweeps(
    scores: torch.Tensor, tile: TileSpec, sweeps: int, v: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Update row and column duals in turn, and the row duals once more at the end.

    In the first and in the last sweep, column duals become the midpoints, without over-relaxation.
    """
    v = scores.new_zeros(scores.shape[1:]) if v is None else v
    for sweep in range(sweeps):
        u = _midpoints((scores - v).transpose(0, 1), tile.row_keep, tile.at_most)
        target = _midpoints(scores - u[:, None], tile.col_keep, tile.at_most)
        is_over_relaxed = sweep not in (0, sweeps - 1)
        v = v + OVER_RELAXATION * (target - v) if is_over_relaxed else target
        v = v.clamp_(min=0.0) if tile.at_most else v
    return _midpoints((scores - v).transpose(0, 1), tile.row_keep, tile.at_most), v


def dual_value(scores: torch.Tensor, tile: TileSpec, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `D(u, v)`, shape `[T]`: an upper bound on the score of any allowed mask.

    Under at-most budgets, it is an upper bound only if no dual is negative.
    """
    excess = (scores - u[:, None] - v).clamp_(min=0.0).sum((0, 1))
    return tile.row_keep * u.sum(0) + tile.col_keep * v.sum(0) + excess


def duality_gap(
    scores: torch.Tensor, mask: torch.Tensor, tile: TileSpec, u: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Return `D(u, v)` minus the score that masks `[R, C, T]` keep, shape `[T]`.

    It is computed as the sum of the violations of complementary slackness, so that it is not a difference of large
    numbers. Unless budgets are at-most, the masks must fill them exactly.
    """
    reduced = scores - u[:, None] - v
    total = torch.where(mask, -reduced, reduced).clamp_(min=0.0).sum((0, 1))
    if tile.at_most:
        total += (u * (tile.row_keep - mask.sum(1))).sum(0) + (v * (tile.col_keep - mask.sum(0))).sum(0)
    return total


def _midpoints(entries: torch.Tensor, keep: int, at_most: bool) -> torch.Tensor:
    """Return the midpoints of the `keep`-th largest entry along axis 0 and the next: `[M, L, T]` to `[L, T]`.

    If all M entries are kept, there is no next one: the result is then the smallest entry, or under at-most budgets 0.
    Results under at-most budgets are at least 0.
    """
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

    A comparator `(low, high)` puts the larger of the values at these two indices to `low`, and the smaller to `high`.

    This is Batcher's odd-even merge sort, without the comparators that neither of the two outputs depends on.
    """
    needed_indices, comparators = {keep - 1, keep}, []
    for low, high in reversed(_odd_even_merge_sort(m)):
        if low in needed_indices or high in needed_indices:
            needed_indices |= {low, high}
            comparators.append((low, high))
    return tuple(reversed(comparators))


def _odd_even_merge_sort(m: int) -> list[tuple[int, int]]:
    """Return comparators, as those of `selection_network`, that sort `m` values, the largest first.

    Runs of sorted values are merged in pairs; comparators of each step compare values at a fixed distance.
    """
    comparators: list[tuple[int, int]] = []
    run_length = 1
    while run_length < m:
        distance, merged_length = run_length, 2 * run_length
        while distance >= 1:
            for start in range(distance % run_length, m - distance, 2 * distance):
                lows = range(start, min(start + distance, m - distance))
                comparators += [
                    (low, low + distance) for low in lows if low // merged_length == (low + distance) // merged_length
                ]
            distance //= 2
        run_length = merged_length
    return comparators
