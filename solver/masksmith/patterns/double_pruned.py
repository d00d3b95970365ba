"""Double-pruned N:M patterns: n:m along the rows, then n:m of the kept entries along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .checks import convert_to_integers
from .geometry import Grid, TileSpec
from .nm import NM
from .pattern import Axis, Ragged


@dataclass(frozen=True)
class DoublePruned:
    """Rows are pruned to n:m, then the kept entries along columns, as SLoPe and Bi-Mask do for the backward pass.

    The allowed masks are those of `transposable <=n:m`: at most `n` kept in every row and every column of each m x m
    tile. Double pruning computes one allowed mask, which need not be the best. The upper bound of a solution is a bound
    on the score that the best allowed mask keeps.

    Attributes:
        n: Maximum number of kept entries of a group.
        m: Group length along both dimensions.
        ragged: As for `NM`.

    Raises:
        PatternError: If `n`, `m` or `ragged` is not allowed.
    """

    n: int
    m: int
    ragged: Ragged = "pad"

    axis: ClassVar[Axis] = "in"

    def __post_init__(self) -> None:
        convert_to_integers(self, "n", "m")
        # The constructor of `NM` checks the values.
        _ = self.at_most

    @property
    def at_most(self) -> NM:
        """The N:M pattern with the same allowed masks, at most `n` kept in every row and column."""
        return NM(self.n, self.m, transposable=True, fill="at_most", ragged=self.ragged)

    @property
    def density(self) -> float:
        """Upper bound on the share of entries kept; double pruning may keep fewer."""
        return self.n / self.m

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of one tile."""
        return self.at_most.tile

    @property
    def shard_rows(self) -> int:
        """Rows of a tile: slices of whole tile rows can be solved separately."""
        return self.m

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of tiles of a weight; raises like `NM.grid`."""
        return self.at_most.grid(shape)

    def __str__(self) -> str:
        return f"double {self.n}:{self.m}"
