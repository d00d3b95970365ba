"""Solves and certifies a band, some rows of tiles, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from masksmith._errors import InfeasibleError
from masksmith.kernels.tile import Budget
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import infeasible_message, kernel_budget

from .certificate.tiles import THREADS, compile_certificate
from .dual_ascent.schedule import NO_INDEX, DeviceResults, DualAscent
from .launcher import Launcher
from .shortest_paths.panel import compile_path_kernel, scratch_sizes

SCRATCH_BYTES, MAX_THREADS = 2**29, 2**14
"""Limits of the shortest-path stage: bytes of work arrays, and threads."""
PATH_THREADS = 64
"""Threads per block of that stage."""


@dataclass(frozen=True)
class BandCertificate:
    """Certificate of a band, on the host.

    Attributes:
        objective: `[down, across]`, score kept by each tile.
        violation: `[down, across]`; objective + violation is an upper bound on the score of any mask of the tile.
        total: `[down, across]`, sum of all scores of each tile.
        legal: `[down, across]`, whether the mask of each tile satisfies its budgets.
        first_invalid: Flat index of the first invalid score (NaN, infinite or negative), or None.
    """

    objective: npt.NDArray[np.float64]
    violation: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    legal: npt.NDArray[np.bool_]
    first_invalid: int | None


@dataclass
class Band:
    """A band: some rows of tiles of a matrix of scores.

    Args:
        scores: `[height, width]` on the device, any strides.
        tile: Size and budgets of a tile.
        down, across: Numbers of tiles; tiles that extend beyond `scores` are padded with zero scores.
        forced: `[down * rows, across * cols]` uint8, 1 keep, 255 drop, 0 free; None if every entry is free.
        start: Row and column duals to start from, `[tiles, rows]` and `[tiles, cols]`, or None.
        weight: As `scores`, of any dtype, to be multiplied by the mask; or None.

    Attributes:
        launcher: Launcher of the device.
        element: How kernels read a score: as `float64`, as `float32`, or from the bits of a `bfloat16`.
        results: Masks and duals on the device, written by `solve`.
        pruned: The weight times the mask; empty if there is no weight.
        packed: The mask as bits along its rows, lowest bit first; empty if there is no weight.
    """

    scores: torch.Tensor
    tile: TileSpec
    down: int
    across: int
    forced: torch.Tensor | None = None
    start: tuple[torch.Tensor, torch.Tensor] | None = None
    weight: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.launcher = Launcher(self.scores.device)
        self.element = {torch.bfloat16: "bfloat16", torch.float64: "float64"}.get(self.scores.dtype, "float32")
        self.results = DeviceResults.new(self.launcher, self.down, self.across, self.tile)
        if self.start is not None:
            self.results.row_duals.copy_(self.start[0])
            self.results.col_duals.copy_(self.start[1])
        weight = self._empty() if self.weight is None else self.weight
        height, width = weight.shape
        self._weight, self.pruned = weight, self.launcher.empty(height, width, dtype=weight.dtype)
        self.packed = self.launcher.empty(height, -(-width // 8), dtype=torch.uint8)

    def solve(self) -> BandCertificate:
        """Solve and certify the band; mask and duals stay on the device, in `results`.

        The host reads results of the kernels once; if tiles need the shortest-path stage, also those of this stage and
        of a second certificate.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        free, forced = self._free_and_forced_tiles()
        ascent = DualAscent(self.launcher, self.scores, self.element, self.tile, self.across, self.results)
        order, counts = ascent.run(free, forced, self.start is not None)
        parts = self._certify()
        first_invalid, _, unsolved_count, ready_count = torch.cat([self.results.first_failures, counts]).tolist()
        if first_invalid == NO_INDEX and (unsolved_count or ready_count or len(forced)):
            # Ready tiles are not solved either: their masks are those from which augmenting paths can start.
            self._run_shortest_paths(torch.cat([order[:unsolved_count], ascent.ready_tiles[:ready_count], forced]))
            parts = self._certify()
        return self._certificate(parts, first_invalid)

    def _free_and_forced_tiles(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the indices of tiles without forced entries, and of those with some."""
        tiles = torch.arange(self.down * self.across, device=self.launcher.device)
        if self.forced is None:
            return tiles, tiles[:0]
        by_tile = self.forced.reshape(self.down, self.tile.rows, self.across, self.tile.cols)
        has_forced = (by_tile != 0).any(3).any(1).reshape(-1)
        return tiles[~has_forced], tiles[has_forced]

    def _run_shortest_paths(self, order: torch.Tensor) -> None:
        """Solve the tiles with the indices `order` by shortest paths.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        budget, launcher = kernel_budget(self.tile), self.launcher
        doubles, integers, flags = scratch_sizes(budget)
        scratch_bytes = 8 * doubles + 8 * integers + flags  # of one thread
        blocks = -(-max(1, min(MAX_THREADS, SCRATCH_BYTES // scratch_bytes, len(order))) // PATH_THREADS)
        threads = blocks * PATH_THREADS
        launcher.launch(
            compile_path_kernel(self.element), blocks, PATH_THREADS, self.scores, self.across,
            *_budget_arguments(budget), self._forced(), order, self.results.ready, self.results.mask,
            self.results.row_duals, self.results.col_duals,
            launcher.empty(threads, doubles, dtype=torch.float64), launcher.empty(threads, integers, dtype=torch.int64),
            launcher.empty(threads, flags, dtype=torch.uint8), self.results.first_failures[1:],
        )  # fmt: skip
        infeasible = int(self.results.first_failures[1])
        if infeasible != NO_INDEX:
            raise InfeasibleError(infeasible_message(self.tile), divmod(infeasible, self.across))

    def _certify(self) -> tuple[torch.Tensor, ...]:
        """Queue the certificate kernel, which also writes `pruned` and `packed`.

        Returns objective, violation, total and legality of each tile.
        """
        launcher, tiles, tile = self.launcher, self.down * self.across, self.tile
        objective, violation, total = (launcher.empty(tiles, dtype=torch.float64) for _ in range(3))
        legal = launcher.empty(tiles, dtype=torch.uint8)
        threads = THREADS // tile.cols * tile.cols
        blocks = self.down * -(-self.across * tile.cols // threads)
        results = self.results
        launcher.launch(
            compile_certificate(self.element), blocks, threads, self.scores, results.mask, self._forced(),
            *_budget_arguments(kernel_budget(tile)), results.row_duals, results.col_duals, self.across, objective,
            violation, total, legal, _raw(self._weight), _raw(self.pruned), self.packed,
        )  # fmt: skip
        return objective, violation, total, legal

    def _forced(self) -> torch.Tensor:
        return self._empty() if self.forced is None else self.forced

    def _empty(self) -> torch.Tensor:
        """Return an empty matrix, which kernels take for an absent argument."""
        return self.launcher.zeros(0, 0, dtype=torch.uint8)

    def _certificate(self, parts: tuple[torch.Tensor, ...], first_invalid: int) -> BandCertificate:
        shape = (self.down, self.across)
        objective, violation, total, legal = (part.cpu().numpy().reshape(shape) for part in parts)
        # Where the duals give no finite bound, the sum of the tile's scores is the bound; the factor covers rounding
        # errors of this sum.
        unbounded = ~np.isfinite(violation)
        with np.errstate(over="ignore", invalid="ignore"):
            violation[unbounded] = (total * (1 + 2.0**-40) - objective)[unbounded]
        invalid_index = None if first_invalid == NO_INDEX else first_invalid
        return BandCertificate(objective, violation, total, legal != 0, invalid_index)


def _raw(weight: torch.Tensor) -> torch.Tensor:
    """View entries as integers of the same size: kernels copy their bits, whatever the dtype."""
    return weight.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])


def _budget_arguments(budget: Budget) -> tuple[Any, ...]:
    return budget.rows, budget.cols, budget.row_keep, budget.col_keep, budget.at_most
