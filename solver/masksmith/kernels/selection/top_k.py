"""The n largest of every group, by counting ranks: groups are lanes, so that the comparisons run in SIMD registers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from masksmith.kernels.jit import inline, jit

Keys = npt.NDArray[np.generic]
LANES = 32
DROPPED = -1.0
"""Sorting key below every score; forced drops get it, forced keeps get infinity."""


@inline
def _load(keys: Keys, scores: Keys, first: int, count: int) -> None:
    """Copy `count` groups of a row to `keys[place, lane]`."""
    m = keys.shape[0]
    for lane in range(count):
        base = (first + lane) * m
        for place in range(m):
            keys[place, lane] = scores[base + place]


@inline
def _force(keys: Keys, forced: npt.NDArray[np.int8], first: int, count: int) -> None:
    """Replace the keys of forced entries."""
    m = keys.shape[0]
    for lane in range(count):
        base = (first + lane) * m
        for place in range(m):
            if forced[base + place] > 0:
                keys[place, lane] = np.inf
            elif forced[base + place] < 0:
                keys[place, lane] = DROPPED


@inline
def _choose(keys: Keys, ranks: npt.NDArray[np.int32], keep: np.int32) -> None:
    """Leave 1 in `ranks` where fewer than `keep` entries go first: larger ones, and equal ones further left."""
    m = keys.shape[0]
    ranks[:] = 0
    for left in range(m):
        for right in range(left + 1, m):
            for lane in range(LANES):
                beaten = np.int32(keys[left, lane] >= keys[right, lane])
                ranks[right, lane] += beaten
                ranks[left, lane] += np.int32(1) - beaten
    for place in range(m):
        for lane in range(LANES):
            ranks[place, lane] = ranks[place, lane] < keep and keys[place, lane] != DROPPED


@inline
def _price(keys: Keys, chosen: npt.NDArray[np.int32], low: Keys, high: Keys) -> None:
    """Find the smallest kept key and the largest dropped one of every lane."""
    low[:] = np.inf
    high[:] = DROPPED
    for place in range(keys.shape[0]):
        for lane in range(LANES):
            key = keys[place, lane]
            kept = chosen[place, lane] != 0
            low[lane] = key if kept and key < low[lane] else low[lane]
            high[lane] = key if not kept and key > high[lane] else high[lane]


@inline
def _is_impossible(chosen: npt.NDArray[np.int32], lane: int, keep: int, at_most: bool, high: float) -> bool:
    """Whether more than `keep` entries must stay, or (exact fill) fewer than `keep` may."""
    count = 0
    for place in range(chosen.shape[0]):
        count += chosen[place, lane]
    return bool(high == np.inf or (count < keep and not at_most))


@jit
def top_k(
    scores: Keys,
    forced: npt.NDArray[np.int8],
    keep: int,
    at_most: bool,
    mask: npt.NDArray[np.bool_],
    prices: npt.NDArray[np.float64],
) -> int:
    """Keep the `keep` largest entries of every group, ties to the lowest index.

    Args:
        scores: `[rows, groups * m]`.
        forced: `[rows, groups * m]`, or `[0, 0]` when every entry is free.
        keep: Entries kept of every group.
        at_most: Whether groups with too many forced drops may stay under-filled.
        mask: `[rows, groups * m]`, written.
        prices: `[rows, groups]`, written: the smallest kept score that no one forced, 0 where nothing free is dropped.

    Returns:
        Index `row * groups + group` of the first group that forced entries make impossible, or -1.
    """
    rows, groups = prices.shape
    m = scores.shape[1] // groups
    keys, ranks = np.zeros((m, LANES), scores.dtype), np.zeros((m, LANES), np.int32)
    low, high = np.empty(LANES, scores.dtype), np.empty(LANES, scores.dtype)
    for row in range(rows):
        for first in range(0, groups, LANES):
            count = min(LANES, groups - first)
            _load(keys, scores[row], first, count)
            if forced.size > 0:
                _force(keys, forced[row], first, count)
            _choose(keys, ranks, np.int32(keep))
            _price(keys, ranks, low, high)
            for lane in range(count):
                if forced.size > 0 and _is_impossible(ranks, lane, keep, at_most, high[lane]):
                    return int(row * groups + first + lane)
                price = high[lane] if low[lane] == np.inf else low[lane]
                prices[row, first + lane] = 0.0 if high[lane] == DROPPED else price
                base = (first + lane) * m
                for place in range(m):
                    mask[row, base + place] = ranks[place, lane] != 0
    return -1


@jit
def top_k_of_four(scores: Keys, keep: int, mask: npt.NDArray[np.bool_], prices: npt.NDArray[np.float64]) -> None:
    """Do what `top_k` does for groups of four free entries: arrays are flat, four entries and one price a group.

    With four names instead of a loop over places, loads and stores become shuffles between registers.
    """
    limit = np.int32(keep)
    for group in range(prices.shape[0]):
        a, b, c, d = scores[4 * group], scores[4 * group + 1], scores[4 * group + 2], scores[4 * group + 3]
        ab, ac, ad = np.int32(a >= b), np.int32(a >= c), np.int32(a >= d)
        bc, bd, cd = np.int32(b >= c), np.int32(b >= d), np.int32(c >= d)
        in_a = np.int32(3) - ab - ac - ad < limit
        in_b = np.int32(2) + ab - bc - bd < limit
        in_c = np.int32(1) + ac + bc - cd < limit
        in_d = ad + bd + cd < limit
        mask[4 * group], mask[4 * group + 1], mask[4 * group + 2], mask[4 * group + 3] = in_a, in_b, in_c, in_d
        top = max(max(a, b), max(c, d))
        price = min(
            min(a if in_a else top, b if in_b else top),
            min(c if in_c else top, d if in_d else top),
        )
        prices[group] = price if keep < 4 else 0.0
