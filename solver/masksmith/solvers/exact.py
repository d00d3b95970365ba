"""Transposable N:M, solved to a proved optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksmith._errors import InfeasibleError
from masksmith._panels import Duals, Panel, PanelAnswer
from masksmith.kernels.dual_ascent.double_pass import wide_wave
from masksmith.kernels.dual_ascent.integer_pass import network_size, wave
from masksmith.kernels.dual_ascent.simd.vectors import LANES
from masksmith.kernels.dual_ascent.tie_pass import noise_of, tie_wave
from masksmith.kernels.jit import COMPILED
from masksmith.kernels.shortest_paths.panel import polish_panel, solve_panel
from masksmith.kernels.tile import Budget, Bytes, Order
from masksmith.patterns import TileSpec

from .base import Parallelism, RefusingBySize

WAVES = {4: (4, 6), 8: (4, 10), 16: (6, 10, 16), 32: (12, 12, 24), 64: (20, 20, 40)}
LIMITED_WAVES = {4: (4, 6, 16), 8: (5, 8, 24), 16: (8, 10, 40), 32: (12, 20, 16), 64: (20, 20, 40)}
"""Sweeps per wave, by network size; for exact budgets and for limits."""
SWEPT_COLD = 8
"""Sides up to which tiles are swept in less time than it takes to read duals to start from."""
WARM_WAVES = {16: (2, 6, 12, 24), 32: (4, 8, 16, 24), 64: (4, 8, 16, 40)}
"""Sweeps per wave where there are such duals."""
WIDE_SWEEPS = 12
"""Those of tiles of many magnitudes."""
TIE_WAVES = {
    4: ((8, 8, 20, 16, False), (12, 8, 0, 20, False)),
    8: ((12, 12, 20, 16, False), (24, 12, 0, 20, False)),
    16: ((12, 16, 20, 16, False), (24, 16, 0, 20, False)),
    32: ((12, 20, 20, 16, False), (24, 20, 0, 20, False)),
    64: ((20, 30, 20, 16, False), (60, 30, 0, 20, False)),
}
LIMITED_TIE_WAVES = {
    4: ((8, 8, 20, 16, False), (8, 8, 0, 20, True)),
    8: ((12, 12, 20, 16, False), (8, 12, 4, 20, True)),
    16: ((12, 16, 20, 16, False), (8, 16, 4, 16, True)),
    32: ((12, 20, 20, 16, False), (8, 20, 4, 16, True)),
    64: ((20, 30, 20, 16, False), (20, 30, 4, 20, True)),
}
"""Sweeps, rounds of lowering, bits of zoom, bits of noise and whether duals keep to their limits, per wave."""


@dataclass(frozen=True)
class Exact(RefusingBySize):
    """Proved-optimal masks for tiles whose rows and columns are both bound.

    Descends on the dual by half-way thresholds, mends what is left with shortest paths, and moves the duals until
    they prove the mask without rounding.

    Attributes:
        device: Torch device; by default a CUDA device where the scores live on one, else the CPU. Masks are the same.
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
        mask = np.empty(panel.scores.shape, np.bool_) if panel.output is None else panel.output
        row_duals, col_duals = _start(panel)
        answer = PanelAnswer(mask, row_duals, col_duals)
        ready = np.zeros(panel.down * panel.across, np.uint8)
        rest, budget = _sweep(panel, answer, ready), budget_of(panel.tile)
        if not rest.size:
            return answer
        forced = np.zeros((0, 0), np.int8) if panel.forced is None else panel.forced
        impossible, unproved = solve_panel(panel.scores, forced, budget, rest, ready, mask, row_duals, col_duals)
        if impossible >= 0:
            raise InfeasibleError(why_infeasible(panel.tile), divmod(int(impossible), panel.across))
        if unproved:
            polish_panel(panel.scores, forced, budget, rest[:unproved], mask, row_duals, col_duals)
        return answer


def _sweep(panel: Panel, answer: PanelAnswer, ready: Bytes) -> Order:
    """Run the waves; give the tiles that they leave unsolved, with the best duals for them."""
    order, forced = _split(panel)
    tile, left, warm = panel.tile, order.size, _is_warm(panel)
    if not order.size + forced.size or not _is_swept(tile):
        return np.concatenate([order, forced])
    shape, budget, tiles = _shape_of(tile), budget_of(tile), panel.down * panel.across
    duals = answer.row_duals.reshape(tiles, -1), answer.col_duals.reshape(tiles, -1)
    size, uneven = max(shape.row_size, shape.col_size), tile.rows * tile.row_keep != tile.cols * tile.col_keep
    limited = uneven
    run = wave(shape.row_size, shape.col_size, shape.row_half, shape.col_half, shape.wide, shape.tall)
    if forced.size:
        # They cannot end here, but duals for free entries are a good start for them.
        run(panel.scores, budget, np.array([8]), warm, limited, forced.copy(), forced.size, answer.mask, *duals)
    waves = WARM_WAVES if warm else LIMITED_WAVES if tile.at_most else WAVES
    left = run(panel.scores, budget, np.array(waves[size]), warm, limited, order, left, answer.mask, *duals)
    if not left:
        return forced
    run = wide_wave(shape.row_size, shape.col_size, shape.wide)
    left = run(panel.scores, budget, WIDE_SWEEPS, order, left, answer.mask, *duals)
    run = tie_wave(shape.row_size, shape.col_size, shape.row_half, shape.col_half, shape.wide)
    for sweeps, rounds, zoom, bits, limited in (LIMITED_TIE_WAVES if tile.at_most else TIE_WAVES)[size]:
        if not left:
            break
        noise = noise_of(budget, shape.row_size, bits)
        stay = limited or uneven
        left = run(panel.scores, budget, sweeps, rounds, zoom, noise, stay, order, left, answer.mask, *duals, ready)
    return np.concatenate([order[:left], np.flatnonzero(ready), forced])


def _is_swept(tile: TileSpec) -> bool:
    """Whether lines have an entry to keep and one to drop, and there are kernels that look for a dual in between."""
    return COMPILED and tile.row_keep < tile.cols and tile.col_keep < tile.rows


def _is_warm(panel: Panel) -> bool:
    """Whether to start from given duals."""
    size = max(panel.tile.rows, panel.tile.cols)
    return panel.start_duals is not None and size > SWEPT_COLD and _is_swept(panel.tile)


def _split(panel: Panel) -> tuple[Order, Order]:
    """Number the tiles that are free, which waves may solve, and those with forced entries, which need paths."""
    tiles, tile = np.arange(panel.down * panel.across), panel.tile
    if panel.forced is None:
        return tiles, tiles[:0]
    cut = panel.forced.reshape(panel.down, tile.rows, panel.across, tile.cols)
    bound = cut.any(axis=(1, 3)).reshape(-1)
    return tiles[~bound], tiles[bound]


@dataclass(frozen=True)
class _Shape:
    """What the lane kernels are made for: network sizes, whether budgets are half of them, entries moved at once."""

    row_size: int
    col_size: int
    row_half: bool
    col_half: bool
    wide: int
    tall: int


def _shape_of(tile: TileSpec) -> _Shape:
    """Give a tile's kernel shape; odd sizes share square ones, so that few kernels are ever compiled."""
    across, down = network_size(tile.cols), network_size(tile.rows)
    if (across, down) != (tile.cols, tile.rows):
        size = max(8, across, down)
        return _Shape(size, size, False, False, 1, 1)
    halves = 2 * tile.row_keep == across, 2 * tile.col_keep == down
    return _Shape(across, down, *halves, min(across, LANES), min(down, LANES))


def budget_of(tile: TileSpec) -> Budget:
    """Give the kernels' view of a tile."""
    width = tile.cols + (1 if tile.at_most else 0)
    return Budget(tile.rows, tile.cols, tile.row_keep, tile.col_keep, tile.at_most, width)


def _start(panel: Panel) -> tuple[Duals, Duals]:
    """Allocate duals; sweeps start from those of the columns, taken from the panel where it has valid ones."""
    shape = (panel.down, panel.across)
    rows, cols = np.zeros((*shape, panel.tile.rows)), np.zeros((*shape, panel.tile.cols))
    if panel.start_duals is not None and _is_warm(panel):
        np.nan_to_num(panel.start_duals[1], nan=0.0, posinf=0.0, neginf=0.0, copy=True).clip(
            0.0 if panel.tile.at_most else -np.inf, None, out=cols
        )
    return rows, cols


def why_infeasible(tile: TileSpec) -> str:
    """Say what forced entries made impossible."""
    fill = "at most" if tile.at_most else "exactly"
    return (
        f"forced entries allow no mask that keeps {fill} {tile.row_keep} of {tile.cols} in every row "
        f"and {fill} {tile.col_keep} of {tile.rows} in every column"
    )
