"""A band of tile rows on the device: read, solved, certified, and one answer for the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from masksmith._errors import InfeasibleError
from masksmith.kernels.tile import Budget
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import budget_of, why_infeasible

from .certificate.tiles import THREADS, certificate
from .dual_ascent.schedule import NONE_BAD, State, Waves
from .launcher import Launcher
from .shortest_paths.panel import path_kernel, scratch_sizes

SCRATCH_BYTES = 2**29
MOST_THREADS = 2**14
PATH_THREADS = 64


@dataclass(frozen=True)
class Proofs:
    """Per tile, `[down, across]`, on the host: score kept, what more any mask could keep at most, and all score.

    `legal` tells whether budgets hold; `bad` is the flat index of the first bad score, or None.
    """

    objective: npt.NDArray[np.float64]
    violation: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    legal: npt.NDArray[np.bool_]
    bad: int | None


@dataclass
class Band:
    """A matrix of scores under tile budgets.

    Args:
        scores: `[height, width]` on the device, any strides.
        tile: Size and budgets.
        down, across: Tiles; those that reach over the edge are padded with zero scores.
        forced: `[down * rows, across * cols]` uint8, 1 keep, 255 drop, 0 free; None when every entry is free.
        start: Row and column duals to start from, `[tiles, rows]` and `[tiles, cols]`, or None.
        weight: As `scores`, of any dtype: to be pruned while the mask is proved; None if that was not asked.

    Attributes:
        pruned: The weight under the mask; empty if there is no weight.
        packed: The mask as bits along its rows, lowest first; likewise.
    """

    scores: torch.Tensor
    tile: TileSpec
    down: int
    across: int
    forced: torch.Tensor | None = None
    start: tuple[torch.Tensor, torch.Tensor] | None = None
    weight: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.device = Launcher(self.scores.device)
        self.element = {torch.bfloat16: "bfloat16", torch.float64: "float64"}.get(self.scores.dtype, "float32")
        self.state = State.new(self.device, self.down, self.across, self.tile)
        if self.start is not None:
            self.state.row_duals.copy_(self.start[0])
            self.state.col_duals.copy_(self.start[1])
        weight = self._none() if self.weight is None else self.weight
        height, width = weight.shape
        self._weight, self.pruned = weight, self.device.empty(height, width, dtype=weight.dtype)
        self.packed = self.device.empty(height, -(-width // 8), dtype=torch.uint8)

    def solve(self) -> Proofs:
        """Find, prove and give the proofs; the mask stays in `state`. The host waits once, unless paths are needed.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        free, bound = self._split()
        waves = Waves(self.device, self.scores, self.element, self.tile, self.across, self.state)
        order, counts = waves.run(free, bound, self.start is not None)
        parts = self._certify()
        flags = torch.cat([self.state.flags, counts]).tolist()
        if flags[0] == NONE_BAD and (flags[2] or flags[3] or len(bound)):
            self._walk(torch.cat([order[: flags[2]], waves.begun[: flags[3]], bound]))
            parts = self._certify()
        return self._proofs(parts, flags[0])

    def _split(self) -> tuple[torch.Tensor, torch.Tensor]:
        tiles = torch.arange(self.down * self.across, device=self.device.at)
        if self.forced is None:
            return tiles, tiles[:0]
        cut = self.forced.reshape(self.down, self.tile.rows, self.across, self.tile.cols)
        bound = (cut != 0).any(3).any(1).reshape(-1)
        return tiles[~bound], tiles[bound]

    def _walk(self, order: torch.Tensor) -> None:
        """Send tiles through shortest paths."""
        budget, device = budget_of(self.tile), self.device
        doubles, numbers, flags = scratch_sizes(budget)
        most = max(1, min(MOST_THREADS, SCRATCH_BYTES // (8 * doubles + 8 * numbers + flags), len(order)))
        blocks = -(-most // PATH_THREADS)
        threads = blocks * PATH_THREADS
        device.launch(
            path_kernel(self.element), blocks, PATH_THREADS, self.scores, self.across, *_numbers(budget),
            self._forced(), order, self.state.ready, self.state.mask, self.state.row_duals, self.state.col_duals,
            device.empty(threads, doubles, dtype=torch.float64), device.empty(threads, numbers, dtype=torch.int64),
            device.empty(threads, flags, dtype=torch.uint8), self.state.flags[1:],
        )  # fmt: skip
        impossible = int(self.state.flags[1])
        if impossible != NONE_BAD:
            raise InfeasibleError(why_infeasible(self.tile), divmod(impossible, self.across))

    def _certify(self) -> tuple[torch.Tensor, ...]:
        """Queue the checker for the mask as it is."""
        device, tiles, tile = self.device, self.down * self.across, self.tile
        objective, violation, total = (device.empty(tiles, dtype=torch.float64) for _ in range(3))
        legal = device.empty(tiles, dtype=torch.uint8)
        threads = THREADS // tile.cols * tile.cols
        blocks = (-(-self.across * tile.cols // threads), self.down)
        state = self.state
        device.launch(
            certificate(self.element), blocks, threads, self.scores, state.mask, self._forced(),
            *_numbers(budget_of(tile)), state.row_duals, state.col_duals, self.across, objective, violation, total,
            legal, _raw(self._weight), _raw(self.pruned), self.packed,
        )  # fmt: skip
        return objective, violation, total, legal

    def _forced(self) -> torch.Tensor:
        return self._none() if self.forced is None else self.forced

    def _none(self) -> torch.Tensor:
        """Stand for a matrix that was not given: kernels see that it is empty."""
        return self.device.zeros(0, 0, dtype=torch.uint8)

    def _proofs(self, parts: tuple[torch.Tensor, ...], bad: int) -> Proofs:
        shape = (self.down, self.across)
        objective, violation, total, legal = (part.cpu().numpy().reshape(shape) for part in parts)
        wild = ~np.isfinite(violation)
        with np.errstate(over="ignore", invalid="ignore"):
            violation[wild] = (total * (1 + 2.0**-40) - objective)[wild]
        return Proofs(objective, violation, total, legal != 0, None if bad == NONE_BAD else bad)


def _raw(weight: torch.Tensor) -> torch.Tensor:
    """View entries as integers: bits are copied, so kernels need not know every dtype."""
    return weight.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])


def _numbers(budget: Budget) -> tuple[Any, ...]:
    return budget.rows, budget.cols, budget.row_keep, budget.col_keep, budget.at_most
