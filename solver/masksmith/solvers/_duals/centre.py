"""Centre the duals of an optimal mask within their feasible intervals, so that they stay feasible when rounded."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from masksmith._panels import Bools, Duals
from masksmith.patterns import TileSpec

CHUNK_ENTRIES = 1 << 15
"""Number of entries of the tiles that are centred together."""


class _Bounds(NamedTuple):
    """Bounds on the sums of duals, `low <= u + v <= high`, with tiles along the last axis.

    Attributes:
        low: `[R, C, T]` scores of free dropped entries, elsewhere -infinity.
        high: `[R, C, T]` scores of free kept entries, elsewhere infinity.
        margin: `[T]`, distance to keep from a bound if there is only one: 1/16 of the largest score.
        row_unfilled: `[R, T]`, whether a row is not full.
        col_unfilled: `[C, T]`, whether a column is not full.
    """

    low: Duals
    high: Duals
    margin: Duals
    row_unfilled: Bools
    col_unfilled: Bools


def centre(
    scores: Duals, mask: Bools, tile: TileSpec, u: Duals, v: Duals, free: Bools | None = None, rounds: int = 12
) -> tuple[Duals, Duals]:
    """Move each dual to the midpoint of its feasible interval, for a row dual `[max dropped w - v, min kept w - v]`.

    Updates of rows and of columns alternate. Duals in their intervals prove the mask; midpoints tolerate rounding to
    float64. A dual whose interval has one bound only is kept at a distance from this bound. Under at-most budgets,
    duals are at least 0, and they are 0 on rows and columns that are not full.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]`, assumed optimal.
        tile: Budgets.
        u: `[T, R]` row duals that prove the mask, up to rounding.
        v: `[T, C]` column duals.
        free: `[T, R, C]`, False where an entry is forced.
        rounds: Number of updates of rows and of columns.

    Returns:
        For each tile the centred duals, or the original duals if with these the violations of complementary slackness
        of entries have a smaller sum.
    """
    new_u, new_v = np.empty_like(u), np.empty_like(v)
    step = max(1, CHUNK_ENTRIES // (tile.rows * tile.cols))
    for at in range(0, len(scores), step):
        part = slice(at, at + step)
        bounds = _bounds(scores[part], mask[part], tile, None if free is None else free[part])
        centred_u, centred_v = _centre(
            bounds, tile, np.ascontiguousarray(u[part].T), np.ascontiguousarray(v[part].T), rounds
        )
        new_u[part], new_v[part] = centred_u.T, centred_v.T
    return new_u, new_v


def _bounds(scores: Duals, mask: Bools, tile: TileSpec, free: Bools | None) -> _Bounds:
    is_free = np.ones(mask.shape, np.bool_) if free is None else free
    low, high = np.where(is_free & ~mask, scores, -np.inf), np.where(is_free & mask, scores, np.inf)
    return _Bounds(
        low=np.ascontiguousarray(low.transpose(1, 2, 0)),
        high=np.ascontiguousarray(high.transpose(1, 2, 0)),
        margin=scores.max((1, 2)) / 16,
        row_unfilled=(mask.sum(2) < tile.row_keep).T,
        col_unfilled=(mask.sum(1) < tile.col_keep).T,
    )


def _centre(bounds: _Bounds, tile: TileSpec, u: Duals, v: Duals, rounds: int) -> tuple[Duals, Duals]:
    new_u, new_v = u, v
    for _ in range(rounds):
        new_u = _midpoint((bounds.low - new_v).max(1), (bounds.high - new_v).min(1), new_u, bounds.margin)
        new_u = _clamp(new_u, bounds.row_unfilled, tile)
        low, high = (bounds.low - new_u[:, None]).max(0), (bounds.high - new_u[:, None]).min(0)
        new_v = _clamp(_midpoint(low, high, new_v, bounds.margin), bounds.col_unfilled, tile)
    worse = _violation(bounds, new_u, new_v) > _violation(bounds, u, v)
    return np.where(worse, u, new_u), np.where(worse, v, new_v)


def _midpoint(low: Duals, high: Duals, dual: Duals, margin: Duals) -> Duals:
    """Return the midpoints of intervals with two bounds; for others the dual, at least `margin` away from the bound."""
    two_sided = np.isfinite(low) & np.isfinite(high)
    middle = np.where(two_sided, low, 0.0) / 2 + np.where(two_sided, high, 0.0) / 2
    away = np.minimum(np.maximum(dual, low + margin), high - margin)
    return np.where(two_sided, middle, away)


def _violation(bounds: _Bounds, u: Duals, v: Duals) -> Duals:
    """Return the sum of the violations of complementary slackness of entries, not of budgets: `[T]`."""
    dropped, kept = bounds.low - u[:, None] - v, bounds.high - u[:, None] - v
    return cast("Duals", (np.maximum(dropped, 0.0) + np.maximum(-kept, 0.0)).sum((0, 1)))


def _clamp(dual: Duals, unfilled: Bools, tile: TileSpec) -> Duals:
    """Under at-most budgets, return duals clamped to at least 0, and set to 0 on rows or columns that are not full."""
    return np.where(unfilled, 0.0, np.maximum(dual, 0.0)) if tile.at_most else dual
