"""Exact solver for tiles with row and column budgets (transposable N:M), with proved optimality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksmith._errors import InfeasibleError
from masksmith._panels import Bools, Duals, Panel, PanelAnswer, for_kernels
from masksmith.kernels.dual_ascent.double_pass import compile_double_pass
from masksmith.kernels.dual_ascent.integer_pass import compile_integer_pass, network_size
from masksmith.kernels.dual_ascent.simd.vectors import LANES
from masksmith.kernels.dual_ascent.tie_pass import compile_tie_pass, tie_noise
from masksmith.kernels.jit import COMPILED
from masksmith.kernels.shortest_paths.panel import polish_panel, solve_panel
from masksmith.kernels.tile import Budget, Bytes, Order
from masksmith.patterns import TileSpec

from ._duals.ascent_schedule import DOUBLE_SWEEPS, FORCED_SWEEPS, MAX_COLD_SIDE, TiePass, integer_rounds, tie_passes
from .base import Parallelism, RefusesByTile


@dataclass(frozen=True)
class Exact(RefusesByTile):
    """Proved-optimal masks for tiles with budgets on rows and columns.

    Dual coordinate ascent by half-way thresholds solves most tiles. Shortest augmenting paths solve the rest. If
    rounding errors keep the duals of a tile from proving its mask, the duals are centred, and negative cycles are
    cancelled.

    Attributes:
        device: Torch device; by default the device of the scores if it is a CUDA device, else the CPU. Masks are the
            same on every device.
    """

    device: str | None = None

    name: ClassVar[str] = "exact"
    version: ClassVar[int] = 3
    parallelism: ClassVar[Parallelism] = "threads"

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        panel = for_kernels(panel)
        answer, ready = _initial_answer(panel), np.zeros(panel.down * panel.across, np.uint8)
        unsolved = _dual_ascent(panel, answer, ready)
        if unsolved.size:
            _shortest_paths(panel, answer, unsolved, ready)
        return answer


def dual_ascent_alone(panel: Panel) -> None:
    """Run only dual ascent, so that two processes can compile its kernels and those of shortest paths at once."""
    _dual_ascent(panel, _initial_answer(panel), np.zeros(panel.down * panel.across, np.uint8))


def shortest_paths_alone(panel: Panel) -> None:
    """Run only shortest paths, for all tiles; see `dual_ascent_alone`."""
    tiles = panel.down * panel.across
    _shortest_paths(panel, _initial_answer(panel), np.arange(tiles), np.zeros(tiles, np.uint8))


def _dual_ascent(panel: Panel, answer: PanelAnswer, ready: Bytes) -> Order:
    """Run the passes of dual coordinate ascent; return the indices of unsolved tiles.

    Writes masks and duals to `answer`; the shortest-path stage starts from the duals of the unsolved tiles. For some of
    these, it can start from the mask, too: a tie pass sets their `ready` to 1 and removes them from `order`, so that no
    later pass works on them.
    """
    order, forced_tiles = _split_by_forced(panel)
    if not _has_dual_ascent(panel.tile):
        return np.concatenate([order, forced_tiles])
    passes = _Passes.of(panel, answer, ready)
    if forced_tiles.size:
        # The pass ignores forced entries, but its duals are good initial values for the shortest-path stage, which
        # solves all these tiles. The pass gets a copy of their indices, because it overwrites the array.
        passes.integer([FORCED_SWEEPS], forced_tiles.copy(), forced_tiles.size)
    rounds = integer_rounds(passes.size, at_most=panel.tile.at_most, warm=passes.warm)
    count = passes.integer(rounds, order, order.size)
    if not count:
        return forced_tiles
    count = passes.double(order, count)
    for tie_pass in tie_passes(passes.size, at_most=panel.tile.at_most):
        count = passes.tie(tie_pass, order, count) if count else 0
    return np.concatenate([order[:count], np.flatnonzero(ready), forced_tiles])


def _shortest_paths(panel: Panel, answer: PanelAnswer, unsolved: Order, ready: Bytes) -> None:
    """Solve the tiles that dual ascent did not solve: see `solve_panel`.

    Raises:
        InfeasibleError: If forced entries leave a tile without an allowed mask.
    """
    budget, duals = kernel_budget(panel.tile), (answer.row_duals, answer.col_duals)
    forced = np.zeros((0, 0), np.int8) if panel.forced is None else panel.forced
    infeasible_tile, unproved_count = solve_panel(panel.scores, forced, budget, unsolved, ready, answer.mask, *duals)
    if infeasible_tile >= 0:
        raise InfeasibleError(infeasible_message(panel.tile), divmod(int(infeasible_tile), panel.across))
    if unproved_count:
        polish_panel(panel.scores, forced, budget, unsolved[:unproved_count], answer.mask, *duals)


def _has_dual_ascent(tile: TileSpec) -> bool:
    """Return whether dual ascent applies: kernels are compiled, and no row or column may keep all of its entries."""
    return COMPILED and tile.row_keep < tile.cols and tile.col_keep < tile.rows


def _is_warm(panel: Panel) -> bool:
    """Return whether dual ascent starts from the panel's initial duals."""
    size = max(panel.tile.rows, panel.tile.cols)
    return panel.start_duals is not None and size > MAX_COLD_SIDE and _has_dual_ascent(panel.tile)


def _split_by_forced(panel: Panel) -> tuple[Order, Order]:
    """Return the indices of tiles without forced entries, which dual ascent can solve, and of the other tiles."""
    tiles, tile = np.arange(panel.down * panel.across), panel.tile
    if panel.forced is None:
        return tiles, tiles[:0]
    forced_by_tile = panel.forced.reshape(panel.down, tile.rows, panel.across, tile.cols)
    has_forced = forced_by_tile.any(axis=(1, 3)).reshape(-1)
    return tiles[~has_forced], tiles[has_forced]


@dataclass(frozen=True)
class _Shape:
    """Compile-time parameters of the passes: see `integer_pass.compile_integer_pass`."""

    row_size: int
    col_size: int
    row_median: bool
    col_median: bool
    width: int
    height: int


def _shape_of(tile: TileSpec) -> _Shape:
    """Return the parameters for a tile.

    If a side has no network of its size, both sides use the same network, of size 8 or more, so that fewer variants of
    the passes are compiled.
    """
    row_size, col_size = network_size(tile.cols), network_size(tile.rows)
    if (row_size, col_size) != (tile.cols, tile.rows):
        size = max(8, row_size, col_size)
        return _Shape(size, size, False, False, 1, 1)
    row_median, col_median = 2 * tile.row_keep == row_size, 2 * tile.col_keep == col_size
    return _Shape(row_size, col_size, row_median, col_median, min(row_size, LANES), min(col_size, LANES))


@dataclass(frozen=True)
class _Passes:
    """The passes of dual coordinate ascent over the tiles of a panel.

    Each pass tries to solve the first `count` tiles of `order`. It overwrites the front of `order` with the indices of
    the tiles that are still unsolved, and returns their number.

    Attributes:
        panel: The panel.
        answer: Masks and duals, written; if `warm`, the column duals are read first.
        ready: By tile; a tie pass sets it to 1 if the mask is optimal for its own column counts, but these are not the
            budgets yet (see `compile_tie_pass`). Such a tile is removed from `order`, though it is not solved:
            augmenting paths must correct its mask.
        shape: Compile-time parameters.
        budget: Size and budgets of a tile.
        warm: Whether the first sweeps start from the duals in `answer`.
    """

    panel: Panel
    answer: PanelAnswer
    ready: Bytes
    shape: _Shape
    budget: Budget
    warm: bool

    @classmethod
    def of(cls, panel: Panel, answer: PanelAnswer, ready: Bytes) -> _Passes:
        return cls(panel, answer, ready, _shape_of(panel.tile), kernel_budget(panel.tile), _is_warm(panel))

    @property
    def size(self) -> int:
        """Size of the larger sorting network."""
        return max(self.shape.row_size, self.shape.col_size)

    def integer(self, rounds: Sequence[int], order: Order, count: int) -> int:
        """Run the integer pass: `rounds` has the sweeps of each round."""
        shape, sweeps = self.shape, np.array(rounds)
        run = compile_integer_pass(
            shape.row_size, shape.col_size, shape.row_median, shape.col_median, shape.width, shape.height
        )
        scores, unequal = self.panel.scores, self._has_unequal_totals
        return int(run(scores, self.budget, sweeps, self.warm, unequal, order, count, *self._output_arrays))

    def double(self, order: Order, count: int) -> int:
        """Run the float64 pass."""
        run = compile_double_pass(self.shape.row_size, self.shape.col_size, self.shape.width)
        return int(run(self.panel.scores, self.budget, DOUBLE_SWEEPS, order, count, *self._output_arrays))

    def tie(self, tie_pass: TiePass, order: Order, count: int) -> int:
        """Run one tie pass."""
        shape, (sweeps, lowerings, zoom, noise_bits, non_negative) = self.shape, tie_pass
        run = compile_tie_pass(shape.row_size, shape.col_size, shape.row_median, shape.col_median, shape.width)
        noise = tie_noise(self.budget, shape.row_size, noise_bits)
        return int(
            run(
                self.panel.scores, self.budget, sweeps, lowerings, zoom, noise,
                non_negative or self._has_unequal_totals, order, count, *self._output_arrays, self.ready,
            )
        )  # fmt: skip

    @property
    def _has_unequal_totals(self) -> bool:
        """Whether rows and columns keep different totals, so that no mask fills all at-most budgets."""
        return self.budget.rows * self.budget.row_keep != self.budget.cols * self.budget.col_keep

    @property
    def _output_arrays(self) -> tuple[Bools, Duals, Duals]:
        """The arrays that passes write: mask, and row and column duals with one row per tile."""
        tiles, answer = self.panel.down * self.panel.across, self.answer
        return answer.mask, answer.row_duals.reshape(tiles, -1), answer.col_duals.reshape(tiles, -1)


def kernel_budget(tile: TileSpec) -> Budget:
    """Return size and budgets of a tile in the form that kernels take."""
    width = tile.cols + (1 if tile.at_most else 0)
    return Budget(tile.rows, tile.cols, tile.row_keep, tile.col_keep, tile.at_most, width)


def _initial_answer(panel: Panel) -> PanelAnswer:
    """Return arrays for the mask and the duals; the mask is the panel's output buffer if the panel has one.

    Duals are 0; but if dual ascent starts from the panel's initial duals, those of the columns are copied.
    """
    mask = np.empty(panel.scores.shape, np.bool_) if panel.output is None else panel.output
    shape = (panel.down, panel.across)
    rows, cols = np.zeros((*shape, panel.tile.rows)), np.zeros((*shape, panel.tile.cols))
    if panel.start_duals is not None and _is_warm(panel):
        np.nan_to_num(panel.start_duals[1], nan=0.0, posinf=0.0, neginf=0.0, copy=True).clip(
            0.0 if panel.tile.at_most else -np.inf, None, out=cols
        )
    return PanelAnswer(mask, rows, cols)


def infeasible_message(tile: TileSpec) -> str:
    """Return the error message for a tile without an allowed mask."""
    fill = "at most" if tile.at_most else "exactly"
    return (
        f"forced entries allow no mask that keeps {fill} {tile.row_keep} of {tile.cols} in every row "
        f"and {fill} {tile.col_keep} of {tile.rows} in every column"
    )
