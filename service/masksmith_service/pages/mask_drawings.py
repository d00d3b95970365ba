"""Draws example masks of patterns, for the pages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from masksmith.patterns import VNM, Block, Channels, Hybrid, Pattern, TilePattern, TileSpec, Unstructured

SEED = 4
"""Seed of every drawing, so that a pattern always looks the same."""
SIDE = 16
"""Usual number of rows, and of columns, of a drawing.

Some drawings are half as high and wide, and those of V:N:M twice as wide. All are adjusted to whole tiles or blocks.
"""
SWAPS_PER_ENTRY = 6
"""Number of attempted swaps in a tile, for each of its entries; they hide the order in which it was filled."""
MAX_SWAPS = SWAPS_PER_ENTRY * SIDE * SIDE
"""Maximum number of attempted swaps in a tile, since they take most of the time of a drawing."""
Rows = list[list[bool]]
"""A rectangle of entries, row by row; True = kept."""


@dataclass(frozen=True)
class Drawing:
    """A small example mask.

    Attributes:
        mask: Rows of entries, True = kept.
        piece_shape: Height and width of one piece (tile, block, ...), in entries; lines are drawn between pieces.
    """

    mask: Rows
    piece_shape: tuple[int, int]

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.mask)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.mask[0])

    @property
    def kept_path(self) -> str:
        """The kept entries as an SVG path: squares of side 0.84, so that gaps remain between them."""
        return "".join(
            f"M{col}.08 {row}.08h.84v.84h-.84z"
            for row, entries in enumerate(self.mask)
            for col, is_kept in enumerate(entries)
            if is_kept
        )

    @property
    def lines_path(self) -> str:
        """The lines between the pieces as an SVG path."""
        horizontal = [f"M0 {row}H{self.width}" for row in range(self.piece_shape[0], self.height, self.piece_shape[0])]
        vertical = [f"M{col} 0V{self.height}" for col in range(self.piece_shape[1], self.width, self.piece_shape[1])]
        return "".join(horizontal + vertical)


def draw(pattern: Pattern) -> Drawing | None:
    """Draw an allowed mask, always the same one; None for a type of pattern that cannot be drawn."""
    rng = random.Random(SEED)
    if isinstance(pattern, TilePattern):
        return _draw_tiles(pattern.tile, transposed=pattern.axis == "out", rng=rng)
    if isinstance(pattern, VNM):
        return _draw_vnm(pattern, rng)
    if isinstance(pattern, Block):
        return _draw_blocks(pattern, rng)
    if isinstance(pattern, Hybrid):
        return _draw_hybrid(pattern, rng)
    if isinstance(pattern, Channels):
        return _draw_channels(pattern, rng)
    if isinstance(pattern, Unstructured):
        return Drawing(_scatter(SIDE, SIDE, pattern.density, rng), (SIDE, SIDE))
    return None


def _draw_tiles(tile: TileSpec, *, transposed: bool, rng: random.Random) -> Drawing:
    """Draw a grid of tiles, about half of `SIDE` high and wide if a tile fits into that, else about `SIDE`."""
    side = SIDE // 2 if max(tile.rows, tile.cols) <= SIDE // 2 else SIDE
    tiles_down, tiles_across = max(1, side // tile.rows), max(1, side // tile.cols)
    mask = _fill_with_tiles(tile, tiles_down * tile.rows, tiles_across * tile.cols, rng)
    # Lines between tiles that are only one row high would hide the mask.
    piece_height = tile.rows if tile.rows > 1 else len(mask)
    if transposed:
        return Drawing([list(col) for col in zip(*mask, strict=True)], (tile.cols, piece_height))
    return Drawing(mask, (piece_height, tile.cols))


def _random_tile(tile: TileSpec, rng: random.Random) -> Rows:
    """Draw one tile.

    Without column budgets (the tile is separable), the kept columns of each row are a random sample. With column
    budgets, each row visits the next `row_keep` columns in cyclic order and skips those whose budget is used up; then
    entries are swapped at random.
    """
    if tile.separable:
        counts = [_keep_count(tile.row_keep, tile, rng) for _ in range(tile.rows)]
        return [_row(tile.cols, rng.sample(range(tile.cols), count)) for count in counts]
    remaining, next_col, rows = [tile.col_keep] * tile.cols, 0, []
    for _ in range(tile.rows):
        kept_cols: list[int] = []
        for _ in range(tile.row_keep):
            if remaining[next_col]:
                kept_cols.append(next_col)
                remaining[next_col] -= 1
            next_col = (next_col + 1) % tile.cols
        rows.append(_row(tile.cols, kept_cols[: _keep_count(len(kept_cols), tile, rng)]))
    _swap_randomly(rows, rng)
    return rows


def _swap_randomly(rows: Rows, rng: random.Random) -> None:
    """Swap the corners of random rectangles if every row and column then keeps as many entries as before.

    A tile that would need more than `MAX_SWAPS` attempts gets only that many; its rows and columns are shuffled first.
    """
    height, width = len(rows), len(rows[0])
    if min(height, width) < 2:
        return
    swap_count = SWAPS_PER_ENTRY * height * width
    if swap_count > MAX_SWAPS:
        swap_count = MAX_SWAPS
        rng.shuffle(rows)
        cols = rng.sample(range(width), width)
        rows[:] = [[row[col] for col in cols] for row in rows]
    for _ in range(swap_count):
        (above, below), (left, right) = rng.sample(range(height), 2), rng.sample(range(width), 2)
        corners = rows[above][left], rows[above][right], rows[below][left], rows[below][right]
        if corners in ((True, False, False, True), (False, True, True, False)):
            for row in (above, below):
                rows[row][left], rows[row][right] = rows[row][right], rows[row][left]


def _keep_count(count: int, tile: TileSpec, rng: random.Random) -> int:
    """Return how many entries a row keeps: `count`, or, if the budget is an upper limit, at random one fewer."""
    return max(0, count - rng.choice((0, 0, 1))) if tile.at_most else count


def _row(width: int, kept_cols: list[int]) -> list[bool]:
    return [col in kept_cols for col in range(width)]


def _draw_vnm(pattern: VNM, rng: random.Random) -> Drawing:
    """Draw panels of V x M entries, cropped to `SIDE` rows.

    A panel chooses `pattern.columns` of its M columns at random; each of its rows keeps N of those. The
    drawing is twice as wide as others, since a panel has few kept entries.
    """
    height = min(pattern.v, SIDE)
    rows: Rows = []
    for _ in range(max(1, SIDE // pattern.v)):
        chosen_columns = [rng.sample(range(pattern.m), pattern.columns) for _ in range(max(1, 2 * SIDE // pattern.m))]
        rows += [_vnm_row(pattern, chosen_columns, rng) for _ in range(height)]
    return Drawing(rows, (height, pattern.m))


def _vnm_row(pattern: VNM, chosen_columns: Sequence[Sequence[int]], rng: random.Random) -> list[bool]:
    return [entry for columns in chosen_columns for entry in _row(pattern.m, rng.sample(columns, pattern.n))]


def _draw_blocks(pattern: Block, rng: random.Random) -> Drawing:
    """Draw blocks: dropped ones empty, kept ones full or filled with tiles of the nested pattern."""
    tile = None if pattern.nested is None else pattern.nested.tile
    height, width, blocks_per_side = _block_shape(tile)
    rows: Rows = []
    for block_row in _kept_blocks(blocks_per_side, pattern, rng):
        blocks = [_fill_block(height, width, tile, rng) if is_kept else _empty(height, width) for is_kept in block_row]
        rows += _side_by_side(blocks)
    return Drawing(rows, (height, width))


def _draw_hybrid(pattern: Hybrid, rng: random.Random) -> Drawing:
    """Draw blocks: dense ones full, the others filled with tiles of the inner pattern."""
    tile = pattern.inner.tile
    height, width, blocks_per_side = _block_shape(tile)
    rows: Rows = []
    for block_row in _scatter(blocks_per_side, blocks_per_side, pattern.dense_share, rng):
        rows += _side_by_side([_fill_block(height, width, None if is_dense else tile, rng) for is_dense in block_row])
    return Drawing(rows, (height, width))


def _block_shape(tile: TileSpec | None) -> tuple[int, int, int]:
    """Return height and width of a drawn block, and how many blocks are drawn along each axis.

    A drawn block is the smallest one of whole tiles that is at least 4 entries high and wide; the size of the pattern's
    own blocks does not matter.
    """
    height, width = (4, 4) if tile is None else (-(-4 // length) * length for length in (tile.rows, tile.cols))
    return height, width, 4 if max(height, width) <= SIDE // 2 else 2


def _fill_block(height: int, width: int, tile: TileSpec | None, rng: random.Random) -> Rows:
    """Return a block that is filled with random tiles, or with kept entries if `tile` is None."""
    return _full(height, width) if tile is None else _fill_with_tiles(tile, height, width, rng)


def _side_by_side(rectangles: Sequence[Rows]) -> Rows:
    """Join rectangles of the same height."""
    height = len(rectangles[0])
    return [[entry for rectangle in rectangles for entry in rectangle[row]] for row in range(height)]


def _empty(height: int, width: int) -> Rows:
    return [[False] * width for _ in range(height)]


def _full(height: int, width: int) -> Rows:
    return [[True] * width for _ in range(height)]


def _fill_with_tiles(tile: TileSpec, height: int, width: int, rng: random.Random) -> Rows:
    """Return a rectangle of whole tiles."""
    rows: Rows = []
    for _ in range(0, height, tile.rows):
        rows += _side_by_side([_random_tile(tile, rng) for _ in range(0, width, tile.cols)])
    return rows


def _kept_blocks(blocks_per_side: int, pattern: Block, rng: random.Random) -> Rows:
    """Return which of `blocks_per_side` x `blocks_per_side` blocks are kept."""
    if pattern.balance == "none":
        return _scatter(blocks_per_side, blocks_per_side, pattern.density, rng)
    # Blocks are chosen like the entries of one tile; `col_keep` 0 means no column budget. The balance "cols" is drawn
    # as "rows" and transposed.
    keep = max(1, round(pattern.density * blocks_per_side))
    col_keep = keep if pattern.balance == "both" else 0
    kept_blocks = _random_tile(
        TileSpec(rows=blocks_per_side, cols=blocks_per_side, row_keep=keep, col_keep=col_keep), rng
    )
    if pattern.balance == "cols":
        return [list(col) for col in zip(*kept_blocks, strict=True)]
    return kept_blocks


def _draw_channels(pattern: Channels, rng: random.Random) -> Drawing:
    keep_count = max(1, round(pattern.density * SIDE))
    channels = _row(SIDE, rng.sample(range(SIDE), keep_count))
    if pattern.axis == "out":
        return Drawing([[is_kept] * SIDE for is_kept in channels], (SIDE, SIDE))
    return Drawing([channels for _ in range(SIDE)], (SIDE, SIDE))


def _scatter(height: int, width: int, density: float, rng: random.Random) -> Rows:
    """Return a rectangle with a share `density` of entries kept, but at least one, at random positions."""
    kept_indices = set(rng.sample(range(height * width), max(1, round(density * height * width))))
    return [[row * width + col in kept_indices for col in range(width)] for row in range(height)]
