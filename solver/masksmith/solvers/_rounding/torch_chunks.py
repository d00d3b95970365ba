"""Panels through torch: tiles in chunks that bound the memory, on any device."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from masksmith._panels import Panel, PanelAnswer, to_tiles
from masksmith.patterns import TileSpec
from masksmith.solvers.base import LimitedBySize, Parallelism

CPU_ENTRIES, GPU_ENTRIES = 1 << 18, 1 << 25
"""Entries of a chunk: enough to drown the overhead of a torch call, few enough for the caches."""

Tensor = torch.Tensor


class TorchSolver(LimitedBySize, ABC):
    """What approximations in torch share: they solve tiles in chunks, and search for no forced entries."""

    device: str | None

    @property
    def parallelism(self) -> Parallelism:
        """Threads on the CPU; a GPU takes panels one after the other."""
        return "threads" if torch.device(self.device or "cpu").type == "cpu" else "none"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Refuse forced entries and free columns."""
        reason = super().refusal(tile, forced=forced)
        if reason is None and forced:
            return f"{self.name} cannot guarantee forced entries; exact and min-cost-flow can"
        return reason

    @abstractmethod
    def solve_tiles(self, tiles: Tensor, tile: TileSpec) -> tuple[Tensor, Tensor, Tensor]:
        """Give for scores `[T, R, C]` a mask of that shape and float64 duals `[T, R]`, `[T, C]`."""

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve a panel's tiles chunk by chunk; tiles do not influence each other, so chunks do not matter."""
        tiles, tile = to_tiles(panel.scores, panel.tile), panel.tile
        mask = np.empty(tiles.shape, np.bool_)
        u, v = np.empty((len(tiles), tile.rows)), np.empty((len(tiles), tile.cols))
        where = torch.device(self.device or "cpu")
        step = max(1, (CPU_ENTRIES if where.type == "cpu" else GPU_ENTRIES) // (tile.rows * tile.cols))
        with torch.inference_mode(), _one_core():
            for at in range(0, len(tiles), step):
                part = slice(at, at + step)
                answers = self.solve_tiles(torch.from_numpy(tiles[part]).to(where), tile)
                mask[part], u[part], v[part] = (answer.cpu().numpy() for answer in answers)
        return PanelAnswer.of_tiles(panel, mask, u, v)


_lock = threading.Lock()
_solving: list[int] = []


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep torch from sharing out these small operations: panels are the parallelism.

    On a machine with anything else to do, torch's threads wait for each other at every operation; a tenfold slowdown
    was measured. The setting belongs to the thread, its default to the process: the first in remembers, all restore.
    """
    with _lock:
        _solving.append(_solving[0] if _solving else torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            torch.set_num_threads(_solving.pop())
