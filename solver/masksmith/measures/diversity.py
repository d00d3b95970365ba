"""Mask diversity: the number of masks that an N:M pattern allows per tile: exact, asymptotic, or a lower bound.

The published formula for transposable tiles, `M! (M-1)! ... (M-N+1)!` (Hubara et al., NeurIPS 2021), multiplies choices
that are not independent: it is correct at 1:4, 1.6 times too large at 2:4, and 150 times at 4:8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from masksmith.patterns import NM, PatternError, TileSpec
from masksmith.patterns.grammar import read_pattern

MAX_STEPS = 10_000_000
"""Largest bound on the transitions of an exact count, about 5 s; beyond it the asymptotic formula is used."""

ColumnCounts = tuple[int, ...]
"""State of a tile whose first rows are chosen: entry r is the number of columns that may keep r more entries."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """The number of allowed masks of a tile (or a plain group).

    Attributes:
        rows, cols: Size of the tile.
        count: Masks of a tile; None where only `log2_count` is known.
        log2_count: Binary logarithm of the number of masks: the information in a tile's mask, in bits.
        method: `exact`; `asymptotic`; or `lower bound`, for at-most fill of large tiles: the asymptotic number of masks
            that keep as many entries as the budgets allow, spread evenly over rows and columns.
        log2_published: Binary logarithm of the published formula for square transposable tiles with exact fill; else
            None.
    """

    rows: int
    cols: int
    count: int | None
    log2_count: float
    method: Literal["exact", "asymptotic", "lower bound"]
    log2_published: float | None

    @property
    def bits_per_weight(self) -> float:
        """`log2_count` divided by the entries of the tile, in [0, 1], to compare tiles of different sizes."""
        return self.log2_count / (self.rows * self.cols)

    def log2_masks(self, entries: int) -> float:
        """Return the binary logarithm of the number of masks of a layer of so many entries.

        A tile that the layer's edge crops counts by the share of its entries that are in the layer.
        """
        return self.bits_per_weight * entries


def diversity(pattern: NM | str) -> Diversity:
    """Count the masks of one tile of an N:M pattern.

    A plain group has `C(m, n)` masks, a binomial coefficient; with at-most fill, `C(m, 0) + ... + C(m, n)`.
    Transposable tiles are counted row by row, over the multiset of the columns' unfilled budgets, if that takes less
    than about 5 s; else by the asymptotic `C(c, n)^r C(r, k)^c / C(rc, rn) * e^-1/2` for tiles that keep n entries in
    each of r rows and k in each of c columns (Canfield, Greenhill, McKay 2008), 6 % low at 4:8.

    Raises:
        PatternError: If the pattern is malformed, or not N:M.
    """
    parsed = read_pattern(pattern)
    if not isinstance(parsed, NM):
        raise PatternError(f"{parsed}: only the tiles of N:M patterns are counted")
    tile = parsed.tile
    published = _log2_published(tile)
    if _steps(tile) <= MAX_STEPS:
        count = _count(tile)
        return Diversity(tile.rows, tile.cols, count, math.log2(count), "exact", published)
    method: Literal["lower bound", "asymptotic"] = "lower bound" if tile.at_most else "asymptotic"
    return Diversity(tile.rows, tile.cols, None, _log2_asymptotic(tile), method, published)


@cache
def _count(tile: TileSpec) -> int:
    """Count the masks of a tile: of independent lines by binomial coefficients, else by dynamic programming by row."""
    if tile.separable:
        fewest = 0 if tile.at_most else tile.row_keep
        return sum(math.comb(tile.cols, kept) for kept in range(fewest, tile.row_keep + 1))
    if _has_free_lines(tile):
        if tile.row_keep == tile.cols:
            tile = TileSpec(tile.cols, tile.rows, tile.col_keep, tile.row_keep, tile.at_most)
        masks_of_row = sum(math.comb(tile.cols, kept) for kept in range(tile.row_keep + 1))
        return math.prod([masks_of_row] * tile.rows)
    tile = _cheapest_form(tile)
    masks_by_state: dict[ColumnCounts, int] = {(*[0] * tile.col_keep, tile.cols): 1}
    for _ in range(tile.rows):
        next_masks_by_state: dict[ColumnCounts, int] = {}
        for state, masks in masks_by_state.items():
            for after, choices in _states_after_row(state, tile.row_keep, tile.at_most):
                next_masks_by_state[after] = next_masks_by_state.get(after, 0) + masks * choices
        masks_by_state = next_masks_by_state
    return sum(masks_by_state.values())


def _states_after_row(state: ColumnCounts, keep: int, at_most: bool) -> Iterator[tuple[ColumnCounts, int]]:
    """Yield each state that one more row can lead to, and the number of masks of this row that lead to it."""

    def choose(level: int, remaining: int, after: list[int], ways: int) -> Iterator[tuple[ColumnCounts, int]]:
        """Choose the columns of the row's `remaining` entries, among those that may keep 1 to `level` more entries.

        `after` is the state after the choices at higher levels, of which there are `ways`; it is changed in place.
        """
        if level == 0:
            if remaining == 0 or at_most:
                yield tuple(after), ways
            return
        most = min(remaining, state[level])
        least = 0 if at_most else max(0, remaining - sum(state[1:level]))
        for taken in range(least, most + 1):
            after[level] -= taken
            after[level - 1] += taken
            yield from choose(level - 1, remaining - taken, after, ways * math.comb(state[level], taken))
            after[level] += taken
            after[level - 1] -= taken

    yield from choose(len(state) - 1, keep, list(state), 1)


def _cheapest_form(tile: TileSpec) -> TileSpec:
    """Return the cheapest tile to count among those that have as many masks as this one.

    These are the tile, its transpose and, with exact fill, the complements of both, which keep what the others drop.
    """
    forms = [tile, TileSpec(tile.cols, tile.rows, tile.col_keep, tile.row_keep, tile.at_most)]
    if not tile.at_most:
        forms += [TileSpec(t.rows, t.cols, t.cols - t.row_keep, t.rows - t.col_keep) for t in forms]
    return min(forms, key=_bound)


def _steps(tile: TileSpec) -> int:
    """Return an upper bound on the transitions of an exact count; 0 for independent lines, which need none."""
    return 0 if tile.separable or _has_free_lines(tile) else _bound(_cheapest_form(tile))


def _has_free_lines(tile: TileSpec) -> bool:
    """Return whether all masks of rows, or of columns, are allowed, so that the lines across are independent."""
    return tile.at_most and (tile.row_keep == tile.cols or tile.col_keep == tile.rows)


def _bound(tile: TileSpec) -> int:
    """Bound the number of transitions of `_count`: the number of states, times that of the next states of each.

    A state is a multiset of the columns' unfilled budgets. A row leads from it to one next state for each way to divide
    the row's kept entries among the sizes of these budgets.
    """
    # With exact fill, a state occurs after one number of rows only; with at-most fill, after any number of rows.
    states = math.comb(tile.cols + tile.col_keep, tile.col_keep) * (tile.rows if tile.at_most else 1)
    return states * math.comb(tile.row_keep + max(0, tile.col_keep - 1) + tile.at_most, tile.row_keep)


def _log2_asymptotic(tile: TileSpec) -> float:
    """Return the binary logarithm of the asymptotic number of masks that keep as much as the budgets allow.

    They keep `kept = min(r n, c k)` entries. All rows keep `kept // r` entries or one more, and all columns `kept // c`
    or one more: of at-most budgets that do not agree, only the smaller one is filled. See `diversity` for the formula.
    """
    rows, cols = tile.rows, tile.cols
    kept = min(rows * tile.row_keep, cols * tile.col_keep)
    full = _log2_choices(rows, cols, kept) + _log2_choices(cols, rows, kept)
    return full - _log2_comb(rows * cols, kept) - 0.5 * math.log2(math.e)


def _log2_choices(lines: int, length: int, kept: int) -> float:
    """Return the binary logarithm of the ways to keep `kept` entries in `lines` lines of `length`, evenly.

    They are the choices of the lines that keep one entry more than the others, times the choices of entries in each
    line.
    """
    least, with_one_more = divmod(kept, lines)
    ways = (lines - with_one_more) * _log2_comb(length, least) + _log2_comb(lines, with_one_more)
    return ways + (with_one_more * _log2_comb(length, least + 1) if with_one_more else 0.0)


def _log2_comb(n: int, k: int) -> float:
    return math.log2(math.comb(n, k))


def _log2_published(tile: TileSpec) -> float | None:
    if tile.separable or tile.at_most or (tile.rows, tile.row_keep) != (tile.cols, tile.col_keep):
        return None
    return sum(math.log2(math.factorial(tile.cols - step)) for step in range(tile.row_keep))
