"""Draws example masks of patterns, for the pages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from masksmith.patterns import VNM, Block, Channels, Hybrid, Pattern, TilePattern, TileSpec, Unstructured

SEED = 4
SIDE = 16
Rows = list[list[bool]]


@dataclass(frozen=True)
class Drawing:
    """A small example mask.

    Attributes:
        mask: Rows of entries, True = kept.
        tile: Rows and columns of a tile; lines are drawn between tiles.
    """

    mask: Rows
    tile: tuple[int, int]

    @property
    def height(self) -> int:
        """Rows drawn."""
        return len(self.mask)

    @property
    def width(self) -> int:
        """Columns drawn."""
        return len(self.mask[0])

    @property
    def kept(self) -> str:
        """The kept entries as an SVG path."""
        return "".join(
            f"M{col}.08 {row}.08h.84v.84h-.84z"
            for row, entries in enumerate(self.mask)
            for col, is_kept in enumerate(entries)
            if is_kept
        )

    @property
    def lines(self) -> str:
        """The lines between tiles as an SVG path."""
        horizontal = [f"M0 {row}H{self.width}" for row in range(self.tile[0], self.height, self.tile[0])]
        vertical = [f"M{col} 0V{self.height}" for col in range(self.tile[1], self.width, self.tile[1])]
        return "".join(horizontal + vertical)


def draw(pattern: Pattern) -> Drawing | None:
    """Draw an allowed mask, always the same one; None for a type of pattern that cannot be drawn."""
    rng = random.Random(SEED)
    if isinstance(pattern, TilePattern):
        return _tiles(pattern.tile, transposed=pattern.axis == "out", rng=rng)
    if isinstance(pattern, VNM):
        return _vnm(pattern, rng)
    if isinstance(pattern, Block):
        return _blocks(pattern, rng)
    if isinstance(pattern, Hybrid):
        return _hybrid(pattern, rng)
    if isinstance(pattern, Channels):
        return _channels(pattern, rng)
    if isinstance(pattern, Unstructured):
        return Drawing(_scatter(SIDE, SIDE, pattern.density, rng), (SIDE, SIDE))
    return None


def _tiles(tile: TileSpec, *, transposed: bool, rng: random.Random) -> Drawing:
    side = SIDE // 2 if max(tile.rows, tile.cols) <= SIDE // 2 else SIDE
    down, across = max(1, side // tile.rows), max(1, side // tile.cols)
    bands: Rows = []
    for _ in range(down):
        pieces = [_tile(tile, rng) for _ in range(across)]
        bands += [[entry for piece in pieces for entry in piece[row]] for row in range(tile.rows)]
    # Tiles of one row: lines between columns alone.
    high = tile.rows if tile.rows > 1 else len(bands)
    if transposed:
        return Drawing([list(col) for col in zip(*bands, strict=True)], (tile.cols, high))
    return Drawing(bands, (high, tile.cols))


def _tile(tile: TileSpec, rng: random.Random) -> Rows:
    """Draw one tile.

    With budgets of columns, each row gets the next columns that have room, which meets both budgets, and entries are
    swapped at random; without, each row is sampled.
    """
    if tile.separable:
        counts = [_keep_count(tile.row_keep, tile, rng) for _ in range(tile.rows)]
        return [_row(tile.cols, rng.sample(range(tile.cols), count)) for count in counts]
    left, next_col, rows = [tile.col_keep] * tile.cols, 0, []
    for _ in range(tile.rows):
        chosen: list[int] = []
        for _ in range(tile.row_keep):
            if left[next_col]:
                chosen.append(next_col)
                left[next_col] -= 1
            next_col = (next_col + 1) % tile.cols
        rows.append(_row(tile.cols, chosen[: _keep_count(len(chosen), tile, rng)]))
    _swap_randomly(rows, rng)
    return rows


def _swap_randomly(rows: Rows, rng: random.Random) -> None:
    """Swap the corners of random rectangles, where that does not change the counts of rows and columns."""
    height, width = range(len(rows)), range(len(rows[0]))
    for _ in range(6 * len(rows) * len(rows[0]) if min(len(rows), len(rows[0])) > 1 else 0):
        (above, below), (left, right) = rng.sample(height, 2), rng.sample(width, 2)
        corners = rows[above][left], rows[above][right], rows[below][left], rows[below][right]
        if corners in ((True, False, False, True), (False, True, True, False)):
            for row in (above, below):
                rows[row][left], rows[row][right] = rows[row][right], rows[row][left]


def _keep_count(count: int, tile: TileSpec, rng: random.Random) -> int:
    return max(0, count - rng.choice((0, 0, 1))) if tile.at_most else count


def _row(width: int, chosen: list[int]) -> list[bool]:
    return [col in chosen for col in range(width)]


def _vnm(pattern: VNM, rng: random.Random) -> Drawing:
    """Draw rectangles of V x M entries: each chooses 4 columns, and each of its rows keeps n of them."""
    height = min(pattern.v, SIDE)
    rows: Rows = []
    for _ in range(max(1, SIDE // pattern.v)):
        columns = [rng.sample(range(pattern.m), pattern.columns) for _ in range(max(1, 2 * SIDE // pattern.m))]
        rows += [_vnm_row(pattern, columns, rng) for _ in range(height)]
    return Drawing(rows, (height, pattern.m))


def _vnm_row(pattern: VNM, columns: Sequence[Sequence[int]], rng: random.Random) -> list[bool]:
    return [entry for cols in columns for entry in _row(pattern.m, rng.sample(cols, pattern.n))]


def _blocks(pattern: Block, rng: random.Random) -> Drawing:
    """Draw blocks: dropped ones empty, kept ones full or filled with tiles of the nested pattern."""
    tile = None if pattern.nested is None else pattern.nested.tile
    height, width, number = _block_shape(tile)
    rows: Rows = []
    for block_row in _kept_blocks(number, pattern, rng):
        blocks = [_block(height, width, tile, rng) if is_kept else _empty(height, width) for is_kept in block_row]
        rows += _side_by_side(blocks)
    return Drawing(rows, (height, width))


def _hybrid(pattern: Hybrid, rng: random.Random) -> Drawing:
    """Draw blocks: dense ones full, the others filled with tiles of the inner pattern."""
    tile = pattern.inner.tile
    height, width, number = _block_shape(tile)
    rows: Rows = []
    for block_row in _scatter(number, number, pattern.dense_share, rng):
        rows += _side_by_side([_block(height, width, None if dense else tile, rng) for dense in block_row])
    return Drawing(rows, (height, width))


def _block_shape(tile: TileSpec | None) -> tuple[int, int, int]:
    """Return height and width of a block, whatever its size, and how many are drawn along each axis.

    A block has the fewest whole tiles that have a side of at least 4 entries.
    """
    height, width = (4, 4) if tile is None else (-(-4 // length) * length for length in (tile.rows, tile.cols))
    return height, width, 4 if max(height, width) <= SIDE // 2 else 2


def _block(height: int, width: int, tile: TileSpec | None, rng: random.Random) -> Rows:
    return _full(height, width) if tile is None else _tiled(tile, height, width, rng)


def _side_by_side(blocks: Sequence[Rows]) -> Rows:
    return [[entry for block in blocks for entry in block[row]] for row in range(len(blocks[0]))]


def _empty(height: int, width: int) -> Rows:
    return [[False] * width for _ in range(height)]


def _full(height: int, width: int) -> Rows:
    return [[True] * width for _ in range(height)]


def _tiled(tile: TileSpec, height: int, width: int, rng: random.Random) -> Rows:
    """Return a rectangle of whole tiles."""
    rows: Rows = []
    for _ in range(0, height, tile.rows):
        tiles = [_tile(tile, rng) for _ in range(0, width, tile.cols)]
        rows += [[entry for piece in tiles for entry in piece[row]] for row in range(tile.rows)]
    return rows


def _kept_blocks(number: int, pattern: Block, rng: random.Random) -> Rows:
    if pattern.balance == "none":
        return _scatter(number, number, pattern.density, rng)
    keep = max(1, round(pattern.density * number))
    chosen = _tile(TileSpec(number, number, keep, 0 if pattern.balance != "both" else keep), rng)
    return [list(col) for col in zip(*chosen, strict=True)] if pattern.balance == "cols" else chosen


def _channels(pattern: Channels, rng: random.Random) -> Drawing:
    keep = max(1, round(pattern.density * SIDE))
    kept = _row(SIDE, rng.sample(range(SIDE), keep))
    if pattern.axis == "out":
        return Drawing([[entry] * SIDE for entry in kept], (SIDE, SIDE))
    return Drawing([kept for _ in range(SIDE)], (SIDE, SIDE))


def _scatter(height: int, width: int, density: float, rng: random.Random) -> Rows:
    places = set(rng.sample(range(height * width), max(1, round(density * height * width))))
    return [[row * width + col in places for col in range(width)] for row in range(height)]
