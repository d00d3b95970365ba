"""V:N:M patterns: V rows share 4 of M columns, and each of these rows keeps N of the 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .checks import check_choice, convert_to_integers
from .errors import PatternError
from .geometry import Grid, matrix_shape
from .pattern import Axis, Ragged

MAX_V = 4096
MAX_M = 64


@dataclass(frozen=True)
class VNM:
    """All rows of a panel of `v` x `m` entries share 4 of its `m` columns; each row keeps `n` of these 4.

    The chosen columns of a panel form an n:4 pattern, which 2:4 hardware supports (VENOM, Castro et al., SC 2023).

    Attributes:
        v: Rows of a panel, 1 to 4096.
        n: Entries **kept** in each row of a panel, 1 to 4.
        m: Columns of a panel, 4 to 64.
        ragged: Panels that extend beyond the matrix: `pad` pads them with zeros, and cuts the allowed masks of padded
            panels to the matrix; `dense` keeps them entirely; `error` raises an error.

    Raises:
        PatternError: If a value is not allowed.
    """

    v: int
    n: int
    m: int
    ragged: Ragged = "pad"

    axis: ClassVar[Axis] = "in"
    columns: ClassVar[int] = 4
    """Number of columns that the rows of a panel share."""

    def __post_init__(self) -> None:
        convert_to_integers(self, "v", "n", "m")
        check_choice("ragged", self.ragged, ("pad", "dense", "error"))
        if not 1 <= self.v <= MAX_V:
            raise PatternError(f"{self}: v, the rows of a panel, must lie between 1 and {MAX_V}")
        if not self.columns <= self.m <= MAX_M:
            raise PatternError(f"{self}: m, the columns of a panel, must lie between {self.columns} and {MAX_M}")
        if not 1 <= self.n <= self.columns:
            raise PatternError(f"{self}: n counts the entries kept of {self.columns} columns, 1 to {self.columns}")

    @property
    def density(self) -> float:
        """Share of the entries that a panel keeps, if the whole panel lies inside the matrix."""
        return self.n / self.m

    @property
    def shard_rows(self) -> int:
        """Number of rows of a panel; slices of a multiple of this number of rows can be solved separately."""
        return self.v

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of panels of a weight.

        Raises:
            PatternError: If the shape is not that of a weight, or has a ragged edge under `ragged="error"`.
        """
        rows, cols = matrix_shape(shape)
        grid = Grid(rows, cols, self.v, self.m)
        if self.ragged == "error" and grid.is_ragged:
            raise PatternError(
                f"{self}: panels of {self.v}x{self.m} do not cover a {rows}x{cols} matrix; choose ragged='pad' or "
                f"'dense'"
            )
        return grid

    def __str__(self) -> str:
        return f"{self.v}:{self.n}:{self.m}"
