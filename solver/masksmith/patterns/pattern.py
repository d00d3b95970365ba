"""The protocols of patterns, and the types of their options."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from .geometry import Grid, TileSpec

Fill = Literal["exact", "at_most"]
Axis = Literal["in", "out"]
Ragged = Literal["pad", "dense", "error"]


@runtime_checkable
class Pattern(Protocol):
    """A set of allowed masks, and the grid of pieces (tiles, blocks, ...) of a weight that it constrains."""

    @property
    def axis(self) -> Axis:
        """For plain n:m, the dimension along which groups run; for `Channels`, that of the channels; otherwise `in`."""
        ...

    @property
    def ragged(self) -> Ragged:
        """Treatment of edges that no whole piece covers; `pad` for patterns that never have such edges."""
        ...

    @property
    def density(self) -> float:
        """Largest share of entries that an allowed mask keeps, in (0, 1], before rounding to whole pieces.

        For `Block`, the share of blocks kept, regardless of a nested pattern.
        """
        ...

    @property
    def shard_rows(self) -> int | None:
        """Slices of a multiple of this number of rows can be solved separately; None if the whole tensor is needed."""
        ...

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of pieces for a weight's shape; for n:m groups along `out`, that of the transposed matrix.

        Raises:
            PatternError: If the shape has fewer than two or more than four dimensions, one of length 0, or a ragged
                edge under `ragged="error"`; or if the pattern does not fit the shape, or would keep nothing.
        """
        ...


@runtime_checkable
class TilePattern(Pattern, Protocol):
    """A pattern whose pieces are tiles: all have the same budgets, and each can be solved independently."""

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of one tile; if `axis` is `out`, of a tile of the transposed matrix."""
        ...
