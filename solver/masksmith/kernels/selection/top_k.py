"""Keeps the n largest entries of every group by their ranks, vectorised over groups (one group per lane)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from masksmith.kernels.jit import inline, jit

Keys = npt.NDArray[np.generic]
LANES = 32
DROPPED = -1.0
"""Sorting key of forced drops, below every score; forced keeps get infinity."""


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
def _select(keys: Keys, kept_flags: npt.NDArray[np.int32], keep: np.int32) -> None:
    """Write 1 to `kept_flags` where fewer than `keep` entries are larger, or equal with a lower index; else 0.

    Forced drops get 0.
    """
    m = keys.shape[0]
    kept_flags[:] = 0
    for left in range(m):
        for right in range(left + 1, m):
            for lane in range(LANES):
                left_first = np.int32(keys[left, lane] >= keys[right, lane])
                kept_flags[right, lane] += left_first
                kept_flags[left, lane] += np.int32(1) - left_first
    # Until here `kept_flags` holds ranks.
    for place in range(m):
        for lane in range(LANES):
            kept_flags[place, lane] = kept_flags[place, lane] < keep and keys[place, lane] != DROPPED


@inline
def _bounds(keys: Keys, kept_flags: npt.NDArray[np.int32], min_kept: Keys, max_dropped: Keys) -> None:
    """Write the smallest kept key of every lane to `min_kept` and the largest dropped key to `max_dropped`."""
    min_kept[:] = np.inf
    max_dropped[:] = DROPPED
    for place in range(keys.shape[0]):
        for lane in range(LANES):
            key = keys[place, lane]
            kept = kept_flags[place, lane] != 0
            min_kept[lane] = key if kept and key < min_kept[lane] else min_kept[lane]
            max_dropped[lane] = key if not kept and key > max_dropped[lane] else max_dropped[lane]


@inline
def _is_infeasible(kept_flags: npt.NDArray[np.int32], lane: int, keep: int, at_most: bool, max_dropped: float) -> bool:
    """Return whether more than `keep` entries are forced, or (exact fill) fewer than `keep` are allowed."""
    count = 0
    for place in range(kept_flags.shape[0]):
        count += kept_flags[place, lane]
    return bool(max_dropped == np.inf or (count < keep and not at_most))


@jit
def top_k(
    scores: Keys,
    forced: npt.NDArray[np.int8],
    keep: int,
    at_most: bool,
    mask: npt.NDArray[np.bool_],
    duals: npt.NDArray[np.float64],
) -> int:
    """Keep the `keep` largest entries of every group, ties to the lowest index.

    Args:
        scores: `[rows, groups * m]`.
        forced: `[rows, groups * m]`, or `[0, 0]` when every entry is free.
        keep: Entries kept of every group.
        at_most: Whether groups with too many forced drops may keep fewer entries.
        mask: `[rows, groups * m]`, written.
        duals: `[rows, groups]`, written: the smallest kept free score of the group, or its largest dropped score if no
            free entry is kept; 0 if no free entry is dropped.

    Returns:
        Index `row * groups + group` of the first group without an allowed mask, or -1.
    """
    rows, groups = duals.shape
    m = scores.shape[1] // groups
    keys, kept_flags = np.zeros((m, LANES), scores.dtype), np.zeros((m, LANES), np.int32)
    min_kept, max_dropped = np.empty(LANES, scores.dtype), np.empty(LANES, scores.dtype)
    for row in range(rows):
        for first in range(0, groups, LANES):
            count = min(LANES, groups - first)
            _load(keys, scores[row], first, count)
            if forced.size > 0:
                _force(keys, forced[row], first, count)
            _select(keys, kept_flags, np.int32(keep))
            _bounds(keys, kept_flags, min_kept, max_dropped)
            for lane in range(count):
                if forced.size > 0 and _is_infeasible(kept_flags, lane, keep, at_most, max_dropped[lane]):
                    return int(row * groups + first + lane)
                dual = max_dropped[lane] if min_kept[lane] == np.inf else min_kept[lane]
                duals[row, first + lane] = 0.0 if max_dropped[lane] == DROPPED else dual
                base = (first + lane) * m
                for place in range(m):
                    mask[row, base + place] = kept_flags[place, lane] != 0
    return -1


@jit
def top_k_of_four(scores: Keys, keep: int, mask: npt.NDArray[np.bool_], duals: npt.NDArray[np.float64]) -> None:
    """Do the same as `top_k`, for groups of four free entries; arrays are flat: four entries and one dual per group.

    The comparisons are unrolled, so that loads and stores are vectorised as shuffles.
    """
    limit = np.int32(keep)
    for group in range(duals.shape[0]):
        a, b, c, d = scores[4 * group], scores[4 * group + 1], scores[4 * group + 2], scores[4 * group + 3]
        ab, ac, ad = np.int32(a >= b), np.int32(a >= c), np.int32(a >= d)
        bc, bd, cd = np.int32(b >= c), np.int32(b >= d), np.int32(c >= d)
        in_a = np.int32(3) - ab - ac - ad < limit
        in_b = np.int32(2) + ab - bc - bd < limit
        in_c = np.int32(1) + ac + bc - cd < limit
        in_d = ad + bd + cd < limit
        mask[4 * group], mask[4 * group + 1], mask[4 * group + 2], mask[4 * group + 3] = in_a, in_b, in_c, in_d
        top = max(max(a, b), max(c, d))
        dual = min(
            min(a if in_a else top, b if in_b else top),
            min(c if in_c else top, d if in_d else top),
        )
        duals[group] = dual if keep < 4 else 0.0
