"""One tensor, its pattern and what else is asked of its mask: the grid of pieces, and every check, on any device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ._errors import InfeasibleError, ScoresError, SolverError, VerificationError, sums_overflow
from ._panels import Duals, Matrix, has_tiles
from ._solution import Solution
from ._tensors import MatrixReader, View
from .kernels.scan import scan
from .patterns import Axis, Pattern, TileSpec


@dataclass(frozen=True)
class Options:
    """What a solve is asked beyond scores and pattern; masks and weight have the scores' shape."""

    must_keep: Any = None
    must_drop: Any = None
    warm_start: Any = None
    hysteresis: float = 0.0
    keep_duals: bool = False
    weight: Any = None
    view: View = "channels-last"


class Problem:
    """Scores under a pattern. Where panels are stored, and how they are solved, is left to the device.

    Args:
        scores: The tensor.
        pattern: What is allowed.
        options: Forced entries, warm start, hysteresis, view.
        name: What messages call the tensor.

    Attributes:
        source: Reads the scores as rows of a matrix.
        grid: The pieces that cover that matrix.
        down, across: Pieces that are solved; under `dense` those of the edge are not.
        height, width: Matrix rows and columns that these pieces cover, padding included.
        must_keep, must_drop, start: Read those masks; None where there is none.

    Raises:
        ScoresError: If the tensor is empty, of a dtype that holds no scores, or another argument's shape differs.
        PatternError: If the pattern does not fit the shape.
        SolverError: If the view is unknown, or an option does not go with the pattern.
    """

    def __init__(self, scores: Any, pattern: Pattern, options: Options | None = None, name: str | None = None) -> None:
        self.scores, self.pattern, self.name = scores, pattern, name
        self.options = options = options or Options()
        self._tile = pattern.tile if has_tiles(pattern) else None
        self._refuse_options()
        self.axis: Axis = pattern.axis if self.has_tiles else "in"
        self.source = MatrixReader(scores, self.axis, name, options.view)
        self.grid = grid = pattern.grid(self.source.shape)
        dense = pattern.ragged == "dense"
        self.down = grid.rows // grid.tile_rows if dense else grid.down
        self.across = grid.cols // grid.tile_cols if dense else grid.across
        self.height, self.width = self.down * grid.tile_rows, self.across * grid.tile_cols
        self._check_weight()
        start = options.warm_start
        self.start = self._mask(start.mask if isinstance(start, Solution) else start, "warm_start")
        self.must_keep = self._mask(options.must_keep, "must_keep")
        self.must_drop = self._mask(options.must_drop, "must_drop")

    @property
    def has_tiles(self) -> bool:
        """Whether pieces are tiles, solved on their own; else the tensor is one problem."""
        return self._tile is not None

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of a tile, under a pattern that has tiles."""
        assert self._tile is not None
        return self._tile

    @property
    def has_forced(self) -> bool:
        """Whether any entry may be forced."""
        return self.must_keep is not None or self.must_drop is not None

    @property
    def bonus(self) -> float:
        """What entries of the warm start count more, in score units."""
        return self.options.hysteresis if self.start is not None else 0.0

    def rows(self, first: int, last: int) -> tuple[Matrix, float]:
        """Read matrix rows of the scores, and their sum; raises as `checked_rows` does."""
        return checked_rows(self.source, first, last)

    def start_duals(self, first: int, last: int) -> tuple[Duals, Duals] | None:
        """Give the duals of an earlier solution for rows of tiles, if it has those of such tiles."""
        start = self.options.warm_start
        if not isinstance(start, Solution) or start.duals is None:
            return None
        u, v = start.duals
        shape = (self.down, self.across)
        if (u.shape, v.shape) != ((*shape, self.tile.rows), (*shape, self.tile.cols)):
            return None
        return u[first:last], v[first:last]

    def contradiction(self, row: int, col: int) -> InfeasibleError:
        """Make the error for an entry of the matrix that must be both kept and dropped."""
        tile = (row // self.tile.rows, col // self.tile.cols)
        return InfeasibleError("an entry is in must_keep and in must_drop", tile, self.name)

    def broken_tile(self, down: int, across: int) -> VerificationError:
        """Make the error for a tile of a solver's mask that breaks its pattern, or a forced entry."""
        return VerificationError(
            f"{self.name or 'scores'}: the solver's mask breaks {self.pattern} in tile [{down}, {across}]; please "
            "report this"
        )

    @contextmanager
    def named(self, first: int) -> Iterator[None]:
        """Name tensor and tile, as the whole tensor counts them, of an error in tile rows that begin at `first`."""
        try:
            yield
        except InfeasibleError as error:
            tile = None if error.tile is None else (first + error.tile[0], error.tile[1])
            raise InfeasibleError(error.reason, tile, self.name) from None

    def _refuse_options(self) -> None:
        if self.has_tiles:
            return
        for option in ("must_keep", "must_drop", "warm_start", "keep_duals"):
            value = getattr(self.options, option)
            if value is not None and value is not False:
                raise SolverError(f"{option} does not go with {self.pattern}: only n:m patterns take it")

    def _check_weight(self) -> None:
        weight = self.options.weight
        if weight is not None and tuple(weight.shape) != self.source.tensor_shape:
            shapes = f"{list(weight.shape)} differs from the scores' {list(self.source.tensor_shape)}"
            raise ScoresError(f"the weight's shape {shapes}", name=self.name)

    def _mask(self, mask: Any, label: str) -> MatrixReader | None:
        if mask is None:
            return None
        reader = MatrixReader(mask, self.axis, label, self.options.view)
        if reader.shape != self.source.shape:
            shapes = f"{list(mask.shape)} differs from the scores' {list(self.source.tensor_shape)}"
            raise ScoresError(f"shape {shapes}", name=label)
        return reader


def checked_rows(source: MatrixReader, first: int, last: int) -> tuple[Matrix, float]:
    """Read matrix rows of scores, and their sum.

    Raises:
        ScoresError: At the first NaN, infinite or negative score, or if float64 does not hold the sum.
    """
    rows = source.rows(first, last)
    bad, total = scan(rows)
    if bad >= 0:
        raise source.bad_score(first * rows.shape[1] + bad, float(rows.flat[bad]))
    if math.isinf(total):
        raise sums_overflow(source.name)
    return rows, total
