"""The problem of one tensor, for any device: scores, pattern, options, the grid of pieces, and checks of these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._errors import InfeasibleError, ScoresError, SolverError, VerificationError, overflow_error
from ._panels import Duals, Matrix, has_tiles
from ._solution import Solution
from ._tensors import MatrixReader, View, check_has_zero
from .kernels.scan import scan
from .patterns import Axis, Pattern, TileSpec
from .patterns.geometry import check_tile

SMALLEST_NUMBER = 5e-324
SMALLEST_UNFLUSHED = {4: 2.0**-126, 8: 2.0**-960}
"""Lower limit of non-zero scores in a thread that replaces subnormal numbers by 0, by the bytes of a score.

Such a thread would take smaller scores, or in float64 the rounding errors of their sums, for 0.
"""
MASK_ENTRIES = 2**18
"""Target of the number of entries of a mask that are checked at once; at least one tile row is checked."""


@dataclass(frozen=True)
class Options:
    """Options of `solve`, with the same defaults; masks and weight have the shape of the scores."""

    must_keep: Any = None
    must_drop: Any = None
    warm_start: Any = None
    hysteresis: float = 0.0
    keep_duals: bool = False
    weight: Any = None
    view: View = "channels-last"


class Problem:
    """Scores under a pattern, independent of the device on which they are solved.

    Args:
        scores: The tensor of scores.
        pattern: Pattern of allowed masks.
        options: Options of the solve; None for the defaults.
        name: Name of the tensor in error messages.

    Attributes:
        source: Reader of the scores as rows of a matrix.
        grid: The grid of pieces (tiles, blocks, ...) that covers the matrix.
        down, across: Numbers of pieces that are solved, down and across the matrix; under `ragged="dense"`, pieces at
            the edge that are not whole are not solved.
        height, width: Numbers of matrix rows and columns that these pieces cover, padding included.
        must_keep, must_drop: Readers of these masks, or None.
        start: Reader of the mask of the warm start, or None.

    Raises:
        ScoresError: If the tensor is empty; if its dtype, or that of a mask, is not supported; if a mask contains NaN;
            or if a mask or the weight has another shape than the scores.
        PatternError: If the pattern does not fit the shape, or solvers do not support its tiles.
        SolverError: If the view is unknown, or the pattern does not support an option.
        InfeasibleError: If an entry of a dense edge, which all allowed masks keep, is in `must_drop`.
    """

    def __init__(self, scores: Any, pattern: Pattern, options: Options | None = None, name: str | None = None) -> None:
        self.scores, self.pattern, self.name = scores, pattern, name
        self.options = options = options or Options()
        self._tile = pattern.tile if has_tiles(pattern) else None
        if self._tile is not None:
            check_tile(self._tile, pattern)
        self._check_options()
        self.axis: Axis = pattern.axis if self.has_tiles else "in"
        self.source = MatrixReader(scores, self.axis, name, options.view)
        self.grid = grid = pattern.grid(self.source.shape)
        edge_is_dense = pattern.ragged == "dense"
        self.down = grid.rows // grid.tile_rows if edge_is_dense else grid.down
        self.across = grid.cols // grid.tile_cols if edge_is_dense else grid.across
        self.height, self.width = self.down * grid.tile_rows, self.across * grid.tile_cols
        self._check_weight()
        start = options.warm_start
        self.start = self._mask_reader(start.mask if isinstance(start, Solution) else start, "warm_start")
        self.must_keep = self._mask_reader(options.must_keep, "must_keep")
        self.must_drop = self._mask_reader(options.must_drop, "must_drop")
        if self.must_drop is not None and edge_is_dense:
            self._check_dense_edge(self.must_drop)

    @property
    def has_tiles(self) -> bool:
        """Whether pieces are tiles, which are solved independently; else the budget belongs to the whole tensor."""
        return self._tile is not None

    @property
    def tile(self) -> TileSpec:
        """Size and budgets of a tile; only for patterns with tiles."""
        assert self._tile is not None
        return self._tile

    @property
    def may_force_entries(self) -> bool:
        """Whether `must_keep` or `must_drop` is given; these masks may be False everywhere."""
        return self.must_keep is not None or self.must_drop is not None

    @property
    def bonus(self) -> float:
        """Score added to each entry that the warm start keeps: the hysteresis, or 0 without a warm start."""
        return self.options.hysteresis if self.start is not None else 0.0

    def rows(self, first: int, last: int) -> tuple[Matrix, float]:
        """Read matrix rows of the scores, and return them with their sum; raises like `checked_rows`."""
        return checked_rows(self.source, first, last)

    def start_duals(self, first: int, last: int) -> tuple[Duals, Duals] | None:
        """Return the warm start's duals of tile rows `first` to `last` (exclusive).

        None if there is no warm start, or it has no duals for this grid.
        """
        start = self.options.warm_start
        if not isinstance(start, Solution) or start.duals is None:
            return None
        u, v = start.duals
        shape = (self.down, self.across)
        if (u.shape, v.shape) != ((*shape, self.tile.rows), (*shape, self.tile.cols)):
            return None
        return u[first:last], v[first:last]

    def conflict_error(self, row: int, col: int) -> InfeasibleError:
        """Return the error for an entry (`row`, `col`) of the matrix that must be both kept and dropped."""
        tile = (row // self.tile.rows, col // self.tile.cols)
        return InfeasibleError("an entry is in must_keep and in must_drop", tile, self.name)

    def violation_error(self, tile_row: int, tile_col: int) -> VerificationError:
        """Return the error for a tile in which a solver's mask violates the pattern, or differs from a forced entry."""
        return VerificationError(
            f"{self.name or 'scores'}: the solver's mask violates {self.pattern} or a forced entry in tile "
            f"[{tile_row}, {tile_col}]; please report this"
        )

    @contextmanager
    def locating_errors(self, first: int) -> Iterator[None]:
        """Raise an `InfeasibleError` of the block again: with the tensor's name, and `first` added to its tile row."""
        try:
            yield
        except InfeasibleError as error:
            tile = None if error.tile is None else (first + error.tile[0], error.tile[1])
            raise InfeasibleError(error.reason, tile, self.name) from None

    def _check_options(self) -> None:
        if self.has_tiles:
            return
        for option in ("must_keep", "must_drop", "warm_start", "keep_duals"):
            value = getattr(self.options, option)
            if value is not None and value is not False:
                raise SolverError(f"{option} is not supported by {self.pattern}: only n:m patterns support it")

    def _check_weight(self) -> None:
        check_weight(self.options.weight, self.source.tensor_shape, self.name)

    def _check_dense_edge(self, must_drop: MatrixReader) -> None:
        grid = self.grid
        step = grid.tile_rows * max(1, MASK_ENTRIES // (grid.tile_rows * grid.cols))
        for first in range(0, grid.rows, step):
            dropped = must_drop.rows(first, min(first + step, grid.rows)) != 0
            dropped[: max(0, self.height - first), : self.width] = False  # not in the edge
            if dropped.any():
                row, col = (int(places[0]) for places in np.nonzero(dropped))
                tile = ((first + row) // grid.tile_rows, col // grid.tile_cols)
                raise InfeasibleError(
                    "an entry of the dense edge, which is kept entirely, is in must_drop", tile, self.name
                )

    def _mask_reader(self, mask: Any, label: str) -> MatrixReader | None:
        if mask is None:
            return None
        reader = MatrixReader(mask, self.axis, label, self.options.view)
        if reader.shape != self.source.shape:
            shapes = f"{list(reader.tensor_shape)} differs from the scores' {list(self.source.tensor_shape)}"
            raise ScoresError(f"shape {shapes}", name=label)
        if reader.holds_nan():
            raise ScoresError("a mask holds NaN; expected True and False", name=label)
        return reader


def checked_rows(source: MatrixReader, first: int, last: int) -> tuple[Matrix, float]:
    """Read and check matrix rows of scores, and return them with their sum.

    Raises:
        ScoresError: At the first NaN, infinite or negative score, if the sum overflows float64, or if the thread would
            treat a score as 0.
    """
    rows = source.rows(first, last)
    if _flushes_subnormal_numbers():
        _check_no_score_is_flushed(rows, source.name)
    invalid, total = scan(rows)
    if invalid >= 0:
        raise source.invalid_score_error(first * rows.shape[1] + invalid, float(rows.flat[invalid]))
    if math.isinf(total):
        raise overflow_error(source.name)
    return rows, total


def _flushes_subnormal_numbers() -> bool:
    """Return whether this thread replaces subnormal numbers by 0, as after `torch.set_flush_denormal(True)`."""
    return SMALLEST_NUMBER * 1.0 == 0.0


def _check_no_score_is_flushed(rows: Matrix, name: str | None) -> None:
    """Compare scores as integers, since floating-point operations would take the scores in question for 0."""
    unsigned: Any = np.uint32 if rows.dtype.itemsize == 4 else np.uint64
    bits, smallest = rows.view(unsigned), SMALLEST_UNFLUSHED[rows.dtype.itemsize]
    if ((bits > 0) & (bits < np.array(smallest, rows.dtype).view(unsigned))).any():
        raise ScoresError(
            f"a score is below {smallest:.2g}, and this thread replaces subnormal numbers by 0",
            name=name,
            hint="call torch.set_flush_denormal(False), or scale the scores up",
        )


def check_weight(weight: Any, shape: tuple[int, ...], name: str | None) -> None:
    """Check that a weight, if there is one, has the shape of its scores.

    Raises:
        ScoresError: If the weight has another shape, or a dtype without zero.
    """
    if weight is None:
        return
    check_has_zero(weight, name)
    if tuple(weight.shape) != shape:
        reason = f"the weight's shape {list(weight.shape)} differs from the scores' {list(shape)}"
        raise ScoresError(reason, name=name)
