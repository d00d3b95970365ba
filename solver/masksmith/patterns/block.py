"""Block patterns: each rectangle of entries is dropped, kept as a whole, or kept under a nested n:m pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .block_grid import can_be_inside, check_sides, check_tiles_fill_blocks, free_block_counts, grid_of_blocks
from .checks import check_choice, convert_to_integers
from .density import check_density, kept_units, split_evenly, to_percent
from .errors import PatternError
from .geometry import Grid
from .nm import NM
from .pattern import Axis, Ragged

Balance = Literal["none", "rows", "cols", "both"]
Norm = Literal["l1", "l2", "max", "mean"]


@dataclass(frozen=True)
class Block:
    """A share `density` of the blocks of `rows` x `cols` entries is kept.

    Attributes:
        rows: Height of a block, 1 to 4096.
        cols: Width of a block, 1 to 4096.
        density: Share of the blocks kept, rounded to a whole number of blocks, halves up. Under `ragged="dense"`, it is
            the share of those blocks that lie inside the matrix.
        balance: How kept blocks are spread: `none`: anywhere; `rows`: the same number in every block row; `cols`: the
            same number in every block column; `both`: `rows` and `cols` together. If the kept blocks cannot be divided
            evenly, the first rows or columns have one block more each.
        norm: Value of a block: the sum of its scores (`l1`), the root of the sum of their squares (`l2`), their maximum
            (`max`) or their mean.
        ragged: Blocks that extend beyond the matrix: `pad` treats the part inside as a block, `dense` keeps it
            entirely, `error` raises an error.
        nested: An n:m pattern (exact fill) inside the kept blocks; the value of a block is then the largest sum of
            scores that this pattern keeps in the block.

    Raises:
        PatternError: If a value is out of range or unknown, or `nested` does not fit the blocks or the norm.
    """

    rows: int
    cols: int
    density: float
    balance: Balance = "none"
    norm: Norm = "l1"
    ragged: Ragged = "pad"
    nested: NM | None = None

    axis: ClassVar[Axis] = "in"
    shard_rows: ClassVar[None] = None

    def __post_init__(self) -> None:
        convert_to_integers(self, "rows", "cols")
        object.__setattr__(self, "density", check_density(self.density))
        check_choice("balance", self.balance, ("none", "rows", "cols", "both"))
        check_choice("norm", self.norm, ("l1", "l2", "max", "mean"))
        check_choice("ragged", self.ragged, ("pad", "dense", "error"))
        check_sides(self)
        if self.nested is not None:
            self._check_nested(self.nested)

    def _check_nested(self, nested: NM) -> None:
        if not isinstance(nested, NM):
            raise PatternError(f"nested={nested!r} is not an n:m pattern; pass ms.NM(...)")
        if not can_be_inside(nested) or self.norm != "l1":
            raise PatternError(f"{self}: 'nested' needs an n:m pattern with exact fill along 'in', and the l1 norm")
        check_tiles_fill_blocks(self, nested)

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of blocks of a weight, edge blocks included.

        Raises:
            PatternError: If the shape is not that of a weight, is ragged under `error`, is ragged under `pad` with a
                nested pattern, or is too small for a whole block under `dense`; or if the density rounds to no block.
        """
        grid = grid_of_blocks(self, shape)
        if self.nested is not None and self.ragged == "pad" and grid.is_ragged:
            raise PatternError(
                f"{self}: {self.rows}x{self.cols} blocks do not divide a {grid.rows}x{grid.cols} matrix, and a cropped "
                f"block with {self.nested} inside may be kept without any kept entry; choose ragged='dense'"
            )
        down, across = self.blocks(grid)
        kept_units(self.density, down * across, "blocks", self)  # only for its error
        return grid

    def blocks(self, grid: Grid) -> tuple[int, int]:
        """Return the numbers of block rows and block columns of the blocks that may be dropped."""
        return free_block_counts(self, grid)

    def budgets(self, grid: Grid) -> tuple[list[int] | None, list[int] | None, int]:
        """Return the numbers of blocks kept in each block row and block column (None if free), and in total."""
        down, across = self.blocks(grid)
        total = kept_units(self.density, down * across, "blocks", self)
        by_row = split_evenly(total, down) if self.balance in ("rows", "both") else None
        by_col = split_evenly(total, across) if self.balance in ("cols", "both") else None
        return by_row, by_col, total

    def __str__(self) -> str:
        text = f"block {self.rows}x{self.cols} {to_percent(self.density)}"
        text += "" if self.balance == "none" else f" balance {self.balance}"
        text += "" if self.norm == "l1" else f" norm {self.norm}"
        return text + ("" if self.nested is None else f" nested {self.nested}")
