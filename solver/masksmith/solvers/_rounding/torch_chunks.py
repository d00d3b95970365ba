"""Base class of solvers in torch, which solve tiles in chunks of bounded memory on any device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from masksmith._panels import Panel, PanelAnswer, to_tiles
from masksmith._torch_threads import torch_threads
from masksmith.patterns import TileSpec
from masksmith.solvers.base import Parallelism, RefusesByTile

CPU_ENTRIES, DEVICE_ENTRIES = 1 << 18, 1 << 25
"""Entries per chunk, on the CPU and on other devices.

They are enough to amortise the overhead of torch calls, and few enough for the CPU's cache or the device's memory.
"""

Tensor = torch.Tensor


class TorchSolver(RefusesByTile, ABC):
    """Base class of approximate solvers in torch; they do not support forced entries.

    Attributes:
        device: Torch device; None for the CPU.
    """

    device: str | None

    @property
    def parallelism(self) -> Parallelism:
        """Threads on the CPU; on any other device panels are solved one after the other."""
        return "threads" if torch.device(self.device or "cpu").type == "cpu" else "none"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support tiles of this size or forced entries, or None if it does."""
        reason = super().refusal(tile, forced=forced)
        if reason is None and forced:
            return f"{self.name} cannot guarantee forced entries; exact and min-cost-flow can"
        return reason

    @abstractmethod
    def solve_tiles(self, tiles: Tensor, tile: TileSpec) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for scores `[T, R, C]`, a mask of that shape and float64 duals `[T, R]`, `[T, C]`."""

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve a panel's tiles in chunks; results do not depend on the chunks, since tiles are independent."""
        tiles, tile = to_tiles(panel.scores, panel.tile), panel.tile
        mask = np.empty(tiles.shape, np.bool_)
        u, v = np.empty((len(tiles), tile.rows)), np.empty((len(tiles), tile.cols))
        device = torch.device(self.device or "cpu")
        step = max(1, (CPU_ENTRIES if device.type == "cpu" else DEVICE_ENTRIES) // (tile.rows * tile.cols))
        # Panels are solved in parallel instead: on a busy machine, torch's threads wait for each other at every
        # operation; a tenfold slowdown was measured.
        with torch.inference_mode(), torch_threads(1):
            for at in range(0, len(tiles), step):
                part = slice(at, at + step)
                chunk = np.require(tiles[part], requirements="W")  # copied if read-only: torch would warn
                results = self.solve_tiles(torch.from_numpy(chunk).to(device), tile)
                mask[part], u[part], v[part] = (result.cpu().numpy() for result in results)
        return PanelAnswer.of_tiles(panel, mask, u, v)
