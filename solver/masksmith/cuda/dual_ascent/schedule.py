"""Queues all passes of dual coordinate ascent on the device; each reads its list of tiles there, without the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from masksmith.cuda.launcher import Launcher
from masksmith.kernels.dual_ascent.tie_pass import tie_noise
from masksmith.patterns import TileSpec
from masksmith.solvers._duals.ascent_schedule import FORCED_SWEEPS, integer_rounds, tie_passes
from masksmith.solvers.exact import kernel_budget

from .integer_pass import compile_integer_pass
from .shape import TIE_PASS, Shape, shape_of
from .tie_pass import compile_tie_pass

NO_INDEX = 2**62
"""Larger than every index: kernels lower it to the index of a failure."""


@dataclass(frozen=True)
class DeviceResults:
    """Results of the kernels, on the device.

    Attributes:
        mask: `[down * rows, across * cols]` uint8, padding included.
        row_duals, col_duals: `[down * across, rows]` and `[down * across, cols]` float64.
        ready: `[down * across]` uint8, 1 if augmenting paths can start from the tile's mask: mask and duals satisfy
            complementary slackness, and every row meets its budget.
        first_failures: `[2]`, smallest flat index of an invalid score, and smallest index of a tile without an allowed
            mask; `NO_INDEX` if there is none.
    """

    mask: torch.Tensor
    row_duals: torch.Tensor
    col_duals: torch.Tensor
    ready: torch.Tensor
    first_failures: torch.Tensor

    @classmethod
    def new(cls, launcher: Launcher, down: int, across: int, tile: TileSpec) -> DeviceResults:
        """Allocate results with empty masks and zero duals."""
        tiles = down * across
        return cls(
            launcher.zeros(down * tile.rows, across * tile.cols, dtype=torch.uint8),
            launcher.zeros(tiles, tile.rows, dtype=torch.float64),
            launcher.zeros(tiles, tile.cols, dtype=torch.float64),
            launcher.zeros(tiles, dtype=torch.uint8),
            launcher.filled(2, value=NO_INDEX),
        )


@dataclass
class DualAscent:
    """The sequence of passes over the tiles of a band.

    Attributes:
        launcher: Launcher of the device.
        scores: `[height, width]` matrix.
        element: How kernels read a score: as `float64`, as `float32`, or from the bits of a `bfloat16`.
        tile: Size and budgets of a tile.
        across: Tiles per tile row.
        results: Results, written; with `warm`, the column duals are read first.
        ready_tiles, ready_count: Indices of the tiles that are `ready` for augmenting paths,
            `ready_tiles[: ready_count[0]]`; set by `run`.
    """

    launcher: Launcher
    scores: torch.Tensor
    element: str
    tile: TileSpec
    across: int
    results: DeviceResults

    def run(self, order: torch.Tensor, forced: torch.Tensor, warm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Queue all passes for the tiles in `order`; the tiles in `forced` only get initial duals.

        If rows or columns keep all of their entries, no pass applies, and all tiles stay unsolved.

        Args:
            order: Indices of the tiles without forced entries.
            forced: Indices of the other tiles.
            warm: Whether the first sweeps start from the duals in `results`.

        Returns:
            A tensor that starts with the indices of the tiles in `order` that are neither solved nor `ready`; and
            counts `[2]` of these tiles and of `ready_tiles`.
        """
        tile, self._next_order = self.tile, torch.empty_like(order)
        shape = shape_of(tile, self.element)
        size = max(shape.row_size, shape.col_size)
        unequal_totals = tile.rows * tile.row_keep != tile.cols * tile.col_keep
        # `_counts[k]` is the number of tiles for pass k; the last entry is the number of `ready_tiles`.
        self._counts, self._order, self._step = self.launcher.zeros(32), order, 0
        self._counts[0] = len(order)
        self.ready_tiles, self.ready_count = torch.empty_like(order), self._counts[31:]
        if tile.row_keep < tile.cols and tile.col_keep < tile.rows:
            tie_shape = shape_of(tile, self.element, TIE_PASS)
            # A copy to the device waits for all kernels in the queue, so the copies precede the first pass.
            noises = self._copy_noises(tie_shape, size)
            if len(forced):
                self._initialise_duals(shape, forced, warm, unequal_totals)
            # The first round fills at-most budgets exactly if their totals are equal; later rounds do not.
            non_negative = unequal_totals
            for sweeps in integer_rounds(size, at_most=tile.at_most, warm=warm):
                self._run_pass(shape, sweeps, warm, non_negative)
                warm, non_negative = True, tile.at_most
            self._run_tie_passes(tie_shape, size, unequal_totals, noises)
        else:
            self._find_invalid_score()
        return self._order, torch.stack([self._counts[self._step], self.ready_count[0]])

    def _find_invalid_score(self) -> None:
        """Record the first NaN, infinite or negative score, as the passes do if they run."""
        invalid = (~((self.scores >= 0) & torch.isfinite(self.scores))).flatten().nonzero()
        if len(invalid):
            self.results.first_failures[0] = invalid[0, 0]

    def _initialise_duals(self, shape: Shape, forced: torch.Tensor, warm: bool, non_negative: bool) -> None:
        """Queue a pass that computes duals of the tiles in `forced`; its list of unsolved tiles is not used."""
        count, unsolved_count = self.launcher.filled(1, value=len(forced)), self.launcher.zeros(1)
        unsolved = torch.empty_like(forced)
        self._launch_pass(shape, FORCED_SWEEPS, warm, non_negative, forced, count, unsolved, unsolved_count)

    def _run_pass(self, shape: Shape, sweeps: int, warm: bool, non_negative: bool) -> None:
        count, unsolved_count = self._next_counts()
        self._launch_pass(shape, sweeps, warm, non_negative, self._order, count, self._next_order, unsolved_count)
        self._order, self._next_order = self._next_order, self._order

    def _launch_pass(
        self, shape: Shape, sweeps: int, warm: bool, non_negative: bool, *lists_and_counts: torch.Tensor
    ) -> None:
        """Launch the integer pass; `lists_and_counts`: its `order`, `count`, `unsolved` and `unsolved_count`."""
        results = self.results
        blocks, threads = -(-len(lists_and_counts[0]) // shape.lanes), (shape.lanes, shape.lines)
        self.launcher.launch(
            compile_integer_pass(shape), blocks, threads, self.scores, self.across, sweeps, warm, non_negative,
            *lists_and_counts, results.mask, results.row_duals, results.col_duals, results.first_failures,
        )  # fmt: skip

    def _copy_noises(self, shape: Shape, size: int) -> list[torch.Tensor]:
        """Copy the noise of each tie pass to the device."""
        budget, passes = kernel_budget(self.tile), tie_passes(size, at_most=self.tile.at_most)
        noises = [torch.from_numpy(tie_noise(budget, shape.row_size, noise_bits)) for _, _, _, noise_bits, _ in passes]
        return [noise.to(self.launcher.device) for noise in noises]

    def _run_tie_passes(self, shape: Shape, size: int, unequal_totals: bool, noises: Sequence[torch.Tensor]) -> None:
        results = self.results
        blocks, threads = -(-len(self._order) // shape.lanes), (shape.lanes, shape.lines)
        passes = tie_passes(size, at_most=self.tile.at_most)
        for (sweeps, lowerings, zoom, _, non_negative), noise in zip(passes, noises, strict=True):
            count, unsolved_count = self._next_counts()
            self.launcher.launch(
                compile_tie_pass(shape), blocks, threads, self.scores, self.across, sweeps, lowerings, zoom, noise,
                non_negative or unequal_totals, self._order, count, self._next_order, unsolved_count,
                results.mask, results.row_duals, results.col_duals, results.ready, self.ready_tiles, self.ready_count,
                results.first_failures,
            )  # fmt: skip
            self._order, self._next_order = self._next_order, self._order

    def _next_counts(self) -> tuple[Any, Any]:
        """Return two arrays of one number: the tiles that the next pass gets, and those that it leaves (0 as yet)."""
        step = self._step
        self._step += 1
        return self._counts[step : step + 1], self._counts[step + 1 : step + 2]
