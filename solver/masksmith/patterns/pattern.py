"""What every pattern offers to solvers, verifier, service and command line."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from .geometry import Grid, TileSpec

Fill = Literal["exact", "at_most"]
Axis = Literal["in", "out"]
Ragged = Literal["pad", "dense", "error"]


@runtime_checkable
class Pattern(Protocol):
    """A set of allowed masks, and how a weight is cut into the pieces that it counts."""

    @property
    def axis(self) -> Axis:
        """Dimension of the weight along which groups run (`Channels`: whose channels are meant)."""
        ...

    @property
    def ragged(self) -> Ragged:
        """What happens at edges that no whole piece covers."""
        ...

    @property
    def density(self) -> float:
        """Largest share of entries that an allowed mask keeps, in (0, 1], but for rounding to whole pieces.

        Of blocks, the share kept, whatever is nested in them.
        """
        ...

    @property
    def shard_rows(self) -> int | None:
        """Rows of the weight that can be solved without the others, and multiples; None: the tensor is one problem."""
        ...

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Cut a weight's shape into pieces.

        Raises:
            PatternError: If the shape has fewer than two or more than four dimensions, an empty one, or a ragged
                edge under `ragged="error"`, or if the pattern leaves nothing of it.
        """
        ...


@runtime_checkable
class TilePattern(Pattern, Protocol):
    """A pattern whose pieces are tiles with the same budgets each, solved on their own."""

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of one tile, in the orientation of `[out, in]` (transposed when `axis` is `out`)."""
        ...
