"""N:M patterns: n kept of every m, or at most n, along one dimension or, transposable, along both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .checks import check_choice, convert_to_integers
from .errors import PatternError
from .geometry import Grid, TileSpec, matrix_shape
from .pattern import Axis, Fill, Ragged

MAX_M = 64


@dataclass(frozen=True)
class NM:
    """`n` entries **kept** of every `m` consecutive ones; with `fill="at_most"`, at most `n`.

    Plain patterns have groups along `axis`. Transposable ones have budgets for every row and every column of tiles of
    `m_out` rows by `m` columns: `n` kept in each row, `n_out` in each column. So `W` is n:m and `W^T` is n_out:m_out.

    Attributes:
        n: Kept entries of a group or, if transposable, of a row of a tile; `1 <= n <= m`.
        m: Length of a group or, if transposable, of a row of a tile; at most 64.
        transposable: Whether rows and columns both have budgets.
        fill: Whether budgets are exact numbers (`exact`) or upper limits (`at_most`).
        n_out: Kept entries of a column of a tile, by default `n`. Transposable patterns only.
        m_out: Rows of a tile, at most 64, by default `m`. Transposable patterns only.
        axis: Dimension that plain groups run along: `in` (within a row) or `out` (within a column).
        ragged: Edges that no whole tile covers: `pad` allows a mask of the edge if it can be extended to an
            allowed mask of the zero-padded tile, `dense` keeps the edge entirely, `error` raises an error.

    Raises:
        PatternError: If a value is not allowed, or the values contradict each other.
    """

    n: int
    m: int
    transposable: bool = False
    fill: Fill = "exact"
    n_out: int | None = None
    m_out: int | None = None
    axis: Axis = "in"
    ragged: Ragged = "pad"

    def __post_init__(self) -> None:
        convert_to_integers(self, "n", "m", "n_out", "m_out")
        _check_ratio(self.n, self.m)
        check_choice("fill", self.fill, ("exact", "at_most"))
        check_choice("axis", self.axis, ("in", "out"))
        check_choice("ragged", self.ragged, ("pad", "dense", "error"))
        if not self.transposable:
            if self.n_out is not None or self.m_out is not None:
                raise PatternError("n_out and m_out belong to transposable patterns; pass transposable=True")
            return
        if self.axis != "in":
            raise PatternError("a transposable pattern constrains both dimensions: axis must stay 'in'")
        object.__setattr__(self, "n_out", self.n if self.n_out is None else self.n_out)
        object.__setattr__(self, "m_out", self.m if self.m_out is None else self.m_out)
        assert self.n_out is not None
        assert self.m_out is not None
        _check_ratio(self.n_out, self.m_out)
        if self.fill == "exact" and self.n * self.m_out != self.n_out * self.m:
            raise PatternError(
                f"{self}: rows keep {self.n}*{self.m_out} entries but columns keep {self.n_out}*{self.m}; exact fill "
                f"needs equal numbers; for limits write '<='"
            )

    @classmethod
    def from_kept(cls, kept: int, m: int, **options: object) -> NM:
        """Return the pattern that keeps `kept` of every `m` entries: `from_kept(4, 16)` is 4:16."""
        return replace(cls(kept, m), **options)  # type: ignore[arg-type]

    @classmethod
    def from_zeros(cls, zeros: int, m: int, **options: object) -> NM:
        """Return the pattern that prunes `zeros` of every `m` entries: `from_zeros(4, 16)` is 12:16."""
        return replace(cls(m - zeros, m), **options)  # type: ignore[arg-type]

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of one tile; for `axis="out"`, of the transposed matrix."""
        at_most = self.fill == "at_most"
        if self.transposable:
            assert self.n_out is not None
            assert self.m_out is not None
            return TileSpec(self.m_out, self.m, self.n, self.n_out, at_most)
        return TileSpec(1, self.m, self.n, 0, at_most)

    @property
    def density(self) -> float:
        """Largest share of entries that an allowed mask keeps, ragged edges aside."""
        if not self.transposable:
            return self.n / self.m
        assert self.n_out is not None
        assert self.m_out is not None
        return min(self.n / self.m, self.n_out / self.m_out)

    @property
    def shard_rows(self) -> int:
        """Rows of the weight per tile; slices of a multiple of this number of rows can be solved separately."""
        return self.tile.cols if self.axis == "out" else self.tile.rows

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of tiles for a weight's shape; for `axis="out"`, of the transposed matrix.

        Raises:
            PatternError: If the shape is not that of a weight, or has a ragged edge under `ragged="error"`.
        """
        rows, cols = matrix_shape(shape)
        if self.axis == "out":
            rows, cols = cols, rows
        grid = Grid(rows, cols, self.tile.rows, self.tile.cols)
        if self.ragged == "error" and grid.is_ragged:
            raise PatternError(
                f"{self}: tiles of {grid.tile_rows}x{grid.tile_cols} do not cover a {rows}x{cols} matrix; choose "
                f"ragged='pad' or 'dense', or another pattern"
            )
        return grid

    def __str__(self) -> str:
        limit = "<=" if self.fill == "at_most" else ""
        text = f"{'transposable ' if self.transposable else ''}{limit}{self.n}:{self.m}"
        if self.transposable and (self.n_out, self.m_out) != (self.n, self.m):
            text += f" x {self.n_out}:{self.m_out}"
        return text


def _check_ratio(n: int, m: int) -> None:
    if not 1 <= m <= MAX_M:
        raise PatternError(f"{n}:{m}: m must lie between 1 and {MAX_M}")
    if not 1 <= n <= m:
        raise PatternError(f"{n}:{m}: n counts the kept entries and must lie between 1 and m = {m}")
