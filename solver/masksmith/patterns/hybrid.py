"""Hybrid patterns: a share of the blocks stays dense, the others obey an n:m pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .block_grid import can_be_inside, check_sides, check_tiles_fill_blocks, free_block_counts, grid_of_blocks
from .checks import check_choice, convert_to_integers
from .density import check_density, kept_units, to_percent
from .errors import PatternError
from .geometry import Grid
from .nm import NM
from .pattern import Axis, Ragged


@dataclass(frozen=True)
class Hybrid:
    """A share `dense_share` of the blocks of `rows` x `cols` entries stays dense; every other block is n:m.

    The share is that of the **dense** blocks, not of the entries kept: `"hybrid 128x128 2:4 75%"` keeps three quarters
    of the blocks whole and 2:4 in the last quarter, hence `0.75 + 0.25 * 0.5 = 87.5 %` of the entries.

    Attributes:
        rows: Height of a block, 1 to 4096; a multiple of the height of the inner pattern's tiles.
        cols: Width of a block, 1 to 4096; a multiple of the width of these tiles.
        inner: The n:m pattern of the blocks that are not dense: exact fill along `in`, or transposable.
        dense_share: Share of the blocks that stay dense, rounded to a whole number of blocks, halves up; under
            `ragged="dense"`, share of the blocks that lie inside the matrix.
        ragged: Blocks that extend beyond the matrix: `pad` treats their part inside the matrix as a block, in which the
            inner pattern pads its tiles; `dense` keeps this part entirely; `error` raises an error.

    Raises:
        PatternError: If the numbers contradict each other, or the inner pattern cannot hold inside blocks.
    """

    rows: int
    cols: int
    inner: NM
    dense_share: float
    ragged: Ragged = "pad"

    axis: ClassVar[Axis] = "in"
    shard_rows: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.inner, NM):
            raise PatternError(f"inner={self.inner!s}: the blocks that are not dense obey an n:m pattern, such as 2:4")
        convert_to_integers(self, "rows", "cols")
        object.__setattr__(self, "dense_share", check_density(self.dense_share))
        check_choice("ragged", self.ragged, ("pad", "dense", "error"))
        check_sides(self)
        if not can_be_inside(self.inner):
            raise PatternError(f"{self}: the inner pattern must be n:m of exact fill along 'in', with ragged='pad'")
        check_tiles_fill_blocks(self, self.inner)

    @property
    def density(self) -> float:
        """Share of the entries kept, before rounding and without ragged edges."""
        return self.dense_share + (1.0 - self.dense_share) * self.inner.density

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of blocks of a weight, edge blocks included.

        Raises:
            PatternError: If the shape is not that of a weight, has edge blocks under `error`, or has no whole block
                under `dense`; or if the share rounds to no dense block.
        """
        grid = grid_of_blocks(self, shape)
        self.dense_blocks(grid)
        return grid

    def blocks(self, grid: Grid) -> tuple[int, int]:
        """Return the numbers of block rows and block columns, without the edge that `ragged="dense"` keeps."""
        return free_block_counts(self, grid)

    def dense_blocks(self, grid: Grid) -> int:
        """Return the number of blocks that stay dense, out of those that `blocks` counts."""
        down, across = self.blocks(grid)
        return kept_units(self.dense_share, down * across, "blocks", self)

    def __str__(self) -> str:
        return f"hybrid {self.rows}x{self.cols} {self.inner} {to_percent(self.dense_share)}"
