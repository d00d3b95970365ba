"""The waves of a layer, queued one behind the other: none waits for the host, each finds its tiles on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from masksmith.cuda.launcher import Launcher
from masksmith.kernels.dual_ascent.tie_pass import noise_of
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import LIMITED_TIE_WAVES, LIMITED_WAVES, TIE_WAVES, WARM_WAVES, WAVES, budget_of

from .integer_pass import wave
from .shape import TIE_BYTES, Shape, shape_of
from .tie_pass import tie_wave

NONE_BAD = 2**62
FORCED_SWEEPS = 8


@dataclass(frozen=True)
class State:
    """What kernels write.

    Attributes:
        mask: `[down * rows, across * cols]` uint8, padding included.
        row_duals, col_duals: `[down * across, rows]` and `[.., cols]` float64.
        ready: `[down * across]` uint8, 1 where mask and duals obey complementary slackness and rows are in order.
        flags: Smallest flat index of a bad score, and smallest index of a tile without an allowed mask, or `NONE_BAD`.
    """

    mask: torch.Tensor
    row_duals: torch.Tensor
    col_duals: torch.Tensor
    ready: torch.Tensor
    flags: torch.Tensor

    @classmethod
    def new(cls, device: Launcher, down: int, across: int, tile: TileSpec) -> State:
        """Allocate; nothing solved, every price 0."""
        tiles = down * across
        return cls(
            device.zeros(down * tile.rows, across * tile.cols, dtype=torch.uint8),
            device.zeros(tiles, tile.rows, dtype=torch.float64),
            device.zeros(tiles, tile.cols, dtype=torch.float64),
            device.zeros(tiles, dtype=torch.uint8),
            device.zeros(2, fill=NONE_BAD),
        )


@dataclass
class Waves:
    """A chain of waves over the tiles of a layer.

    Attributes:
        device: Where.
        scores: The layer's matrix.
        element: Dtype that kernels read it as.
        tile: Size and budgets.
        across: Tiles side by side.
        state: What they write.
        begun: Tiles that ties left for paths to finish, as many as `begun_count` says.
    """

    device: Launcher
    scores: torch.Tensor
    element: str
    tile: TileSpec
    across: int
    state: State

    def run(self, order: torch.Tensor, forced: torch.Tensor, warm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Queue all waves for the tiles of `order`; those of `forced` only get prices to start from.

        Returns:
            `[3, tiles]`-like pair: an order with the tiles left over, and counts `[2]` of tiles left over and begun.
        """
        tile, self._spare = self.tile, torch.empty_like(order)
        shape = shape_of(tile, self.element)
        size, uneven = max(shape.row_size, shape.col_size), tile.rows * tile.row_keep != tile.cols * tile.col_keep
        self._counts, self._order, self._step = self.device.zeros(32), order, 0
        self._counts[0] = len(order)
        self.begun, self.begun_count = torch.empty_like(order), self._counts[31:]
        if tile.row_keep < tile.cols and tile.col_keep < tile.rows:
            if len(forced):
                self._price(shape, forced, warm, uneven)
            waves = WARM_WAVES if warm else LIMITED_WAVES if tile.at_most else WAVES
            limited = uneven
            for count in waves[size]:
                self._sweep(shape, count, warm, limited)
                warm, limited = True, tile.at_most
            self._break_ties(shape_of(tile, self.element, TIE_BYTES), size, uneven)
        return self._order, torch.stack([self._counts[self._step], self.begun_count[0]])

    def _price(self, shape: Shape, forced: torch.Tensor, warm: bool, limited: bool) -> None:
        count, rest = self.device.zeros(1, fill=len(forced)), self.device.zeros(1)
        self._launch_sweep(shape, FORCED_SWEEPS, warm, limited, forced, count, torch.empty_like(forced), rest)

    def _sweep(self, shape: Shape, sweeps: int, warm: bool, limited: bool) -> None:
        count, left = self._next()
        self._launch_sweep(shape, sweeps, warm, limited, self._order, count, self._spare, left)
        self._order, self._spare = self._spare, self._order

    def _launch_sweep(self, shape: Shape, sweeps: int, warm: bool, limited: bool, *chain: torch.Tensor) -> None:
        state = self.state
        blocks, threads = -(-len(chain[0]) // shape.lanes), (shape.lanes, shape.lines)
        self.device.launch(
            wave(shape), blocks, threads, self.scores, self.across, sweeps, warm, limited, *chain, state.mask,
            state.row_duals, state.col_duals, state.flags,
        )  # fmt: skip

    def _break_ties(self, shape: Shape, size: int, uneven: bool) -> None:
        budget, state = budget_of(self.tile), self.state
        blocks, threads = -(-len(self._order) // shape.lanes), (shape.lanes, shape.lines)
        for sweeps, rounds, zoom, bits, limited in (LIMITED_TIE_WAVES if self.tile.at_most else TIE_WAVES)[size]:
            noise = torch.from_numpy(noise_of(budget, shape.row_size, bits)).to(self.device.at)
            count, left = self._next()
            self.device.launch(
                tie_wave(shape), blocks, threads, self.scores, self.across, sweeps, rounds, zoom, noise,
                limited or uneven, self._order, count, self._spare, left, state.mask, state.row_duals, state.col_duals,
                state.ready, self.begun, self.begun_count, state.flags,
            )  # fmt: skip
            self._order, self._spare = self._spare, self._order

    def _next(self) -> tuple[Any, Any]:
        step = self._step
        self._step += 1
        return self._counts[step : step + 1], self._counts[step + 1 : step + 2]
