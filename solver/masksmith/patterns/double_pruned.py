"""Double-pruned N:M: the n:m mask of W, then the n:m mask of the transpose of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .geometry import Grid, TileSpec
from .nm import NM
from .pattern import Axis, Ragged


@dataclass(frozen=True)
class DoublePruned:
    """Prune every row to n:m, and what is left to n:m along the columns, as SLoPe and Bi-Mask do for the backward pass.

    Allowed is what `transposable <=n:m` allows: at most `n` kept in every row and every column of each m x m tile.
    Double pruning finds one such mask, not the best; the bound is that of the best.

    Attributes:
        n: Kept entries of a group at most.
        m: Group length along both dimensions.
        ragged: As for `NM`.

    Raises:
        PatternError: If the numbers contradict each other.
    """

    n: int
    m: int
    ragged: Ragged = "pad"

    axis: ClassVar[Axis] = "in"

    def __post_init__(self) -> None:
        _ = self.at_most

    @property
    def at_most(self) -> NM:
        """The pattern with the same allowed masks."""
        return NM(self.n, self.m, transposable=True, fill="at_most", ragged=self.ragged)

    @property
    def density(self) -> float:
        """Largest share of entries kept; double pruning keeps fewer."""
        return self.n / self.m

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of one tile."""
        return self.at_most.tile

    @property
    def shard_rows(self) -> int:
        """Tiles are solved on their own."""
        return self.m

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Cut a weight into tiles; raises as `NM.grid` does."""
        return self.at_most.grid(shape)

    def __str__(self) -> str:
        return f"double {self.n}:{self.m}"
