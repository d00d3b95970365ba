"""Move duals of a known mask from the edge of what proves it to the middle, where rounding cannot hurt."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from masksmith._panels import Bools, Duals
from masksmith.patterns import TileSpec

CHUNK_ENTRIES = 1 << 15


class _Proof(NamedTuple):
    """What duals have to separate, tiles along the last axis.

    Attributes:
        low: `[R, C, T]` scores of free dropped entries, elsewhere -infinity.
        high: `[R, C, T]` scores of free kept entries, elsewhere infinity.
        margin: `[T]`, a sizeable part of the scores.
        row_slack: `[R, T]`, rows that have room left.
        col_slack: `[C, T]`, columns that have.
    """

    low: Duals
    high: Duals
    margin: Duals
    row_slack: Bools
    col_slack: Bools


def centre(
    scores: Duals, mask: Bools, tile: TileSpec, u: Duals, v: Duals, free: Bools | None = None, rounds: int = 12
) -> tuple[Duals, Duals]:
    """Put each dual midway between the largest dropped and the smallest kept `w - (other dual)`, sides in turn.

    Any number between the two keeps the proof; the middle survives duals that double precision cannot hold exactly.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]`, presumed optimal.
        tile: Budgets.
        u: `[T, R]` row duals, near enough to a proof.
        v: `[T, C]` column duals.
        free: `[T, R, C]`, False where an entry is forced.
        rounds: How often each side is moved; slack spreads by an entry a round, from where there is some.

    Returns:
        The duals moved, or as they were in tiles where that proves more.
    """
    new_u, new_v = np.empty_like(u), np.empty_like(v)
    step = max(1, CHUNK_ENTRIES // (tile.rows * tile.cols))
    for at in range(0, len(scores), step):
        part = slice(at, at + step)
        proof = _proof(scores[part], mask[part], tile, None if free is None else free[part])
        p, q = _centre(proof, tile, np.ascontiguousarray(u[part].T), np.ascontiguousarray(v[part].T), rounds)
        new_u[part], new_v[part] = p.T, q.T
    return new_u, new_v


def _proof(scores: Duals, mask: Bools, tile: TileSpec, free: Bools | None) -> _Proof:
    everywhere = np.ones(mask.shape, np.bool_) if free is None else free
    low, high = np.where(everywhere & ~mask, scores, -np.inf), np.where(everywhere & mask, scores, np.inf)
    return _Proof(
        low=np.ascontiguousarray(low.transpose(1, 2, 0)),
        high=np.ascontiguousarray(high.transpose(1, 2, 0)),
        margin=scores.max((1, 2)) / 16,
        row_slack=(mask.sum(2) < tile.row_keep).T,
        col_slack=(mask.sum(1) < tile.col_keep).T,
    )


def _centre(proof: _Proof, tile: TileSpec, u: Duals, v: Duals, rounds: int) -> tuple[Duals, Duals]:
    p, q = u, v
    for _ in range(rounds):
        p = _middle((proof.low - q).max(1), (proof.high - q).min(1), p, proof.margin)
        p = _limit(p, proof.row_slack, tile)
        q = _middle((proof.low - p[:, None]).max(0), (proof.high - p[:, None]).min(0), q, proof.margin)
        q = _limit(q, proof.col_slack, tile)
    worse = _excess(proof, p, q) > _excess(proof, u, v)
    return np.where(worse, u, p), np.where(worse, v, q)


def _middle(low: Duals, high: Duals, dual: Duals, margin: Duals) -> Duals:
    """Move duals between their limits, or well away from the only one."""
    two_sided = np.isfinite(low) & np.isfinite(high)
    middle = np.where(two_sided, low, 0.0) / 2 + np.where(two_sided, high, 0.0) / 2
    away = np.minimum(np.maximum(dual, low + margin), high - margin)
    return np.where(two_sided, middle, away)


def _excess(proof: _Proof, u: Duals, v: Duals) -> Duals:
    """Sum what speaks against the proof: `[T]`."""
    dropped, kept = proof.low - u[:, None] - v, proof.high - u[:, None] - v
    return cast("Duals", (np.maximum(dropped, 0.0) + np.maximum(-kept, 0.0)).sum((0, 1)))


def _limit(dual: Duals, slack: Bools, tile: TileSpec) -> Duals:
    """At-most budgets have duals of at least 0, and of 0 where they do not bind."""
    return np.where(slack, 0.0, np.maximum(dual, 0.0)) if tile.at_most else dual
