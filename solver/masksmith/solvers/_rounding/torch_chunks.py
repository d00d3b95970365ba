"""Panels through torch: tiles in chunks that bound the memory, on any device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch

from masksmith._panels import Bools, Panel, PanelAnswer, from_tiles, to_tiles
from masksmith.patterns import TileSpec

CPU_ENTRIES, GPU_ENTRIES = 1 << 18, 1 << 25
"""Entries of a chunk: enough to drown the overhead of a torch call, few enough for the caches."""

TileSolver = Callable[[torch.Tensor, TileSpec], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Scores `[T, R, C]` to mask `[T, R, C]` and float64 duals `[T, R]`, `[T, C]`."""


def answer_in_chunks(panel: Panel, solve: TileSolver, device: str | None) -> PanelAnswer:
    """Solve a panel's tiles chunk by chunk; tiles do not influence each other, so chunks do not matter."""
    tiles, tile = to_tiles(panel.scores, panel.tile), panel.tile
    mask = np.empty(tiles.shape, np.bool_)
    u, v = np.empty((len(tiles), tile.rows)), np.empty((len(tiles), tile.cols))
    where = torch.device(device or "cpu")
    step = max(1, (CPU_ENTRIES if where.type == "cpu" else GPU_ENTRIES) // (tile.rows * tile.cols))
    with torch.inference_mode(), _one_core():
        for at in range(0, len(tiles), step):
            part = slice(at, at + step)
            answers = solve(torch.from_numpy(tiles[part]).to(where), tile)
            mask[part], u[part], v[part] = (answer.cpu().numpy() for answer in answers)
    shape = (panel.down, panel.across)
    return PanelAnswer(
        cast("Bools", from_tiles(mask, *shape)), u.reshape(*shape, tile.rows), v.reshape(*shape, tile.cols)
    )


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
