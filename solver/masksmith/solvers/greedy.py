"""Greedy solver: takes entries in descending order, and keeps each one that fits; a fast approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from masksmith.patterns import TileSpec

from ._duals.sweeps import sweep_duals
from ._rounding.repair import fill_up
from ._rounding.torch_chunks import TorchSolver


@dataclass(frozen=True)
class Greedy(TorchSolver):
    """Keep entries in descending order, each if its row and column are not full; then, with `repair`, fill up by swaps.

    Without repair, greedy leaves most tiles below their budget (93 % of them at 8:16); only "at most" patterns allow
    this. Ties go to the lowest row-major index. Duals come from `_duals.sweeps` and bound the gap.

    Hubara et al. (2021), Accelerated sparse neural training: a provable and efficient method to find N:M transposable
    masks, NeurIPS.

    Attributes:
        repair: Whether to fill up by swaps; required for exact fill.
        device: Torch device, the CPU by default.
    """

    repair: bool = True
    device: str | None = None

    name: ClassVar[str] = "greedy"
    version: ClassVar[int] = 1

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support such tiles (exact fill needs repair), or None if it does."""
        reason = super().refusal(tile, forced=forced)
        if reason is None and not self.repair and not tile.at_most:
            return "greedy without repair leaves tiles under-filled: use an at-most pattern, or repair=True"
        return reason

    def solve_tiles(self, tiles: torch.Tensor, tile: TileSpec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute masks greedily, and duals that bound the optimum."""
        mask = keep_descending(tiles, tile)
        scores = tiles.double()
        if self.repair:
            mask = fill_up(scores, mask, tile)
        u, v = sweep_duals(scores.permute(1, 2, 0).contiguous(), tile)
        return mask, u.T, v.T


def keep_descending(keys: torch.Tensor, tile: TileSpec) -> torch.Tensor:
    """Return masks to which no entry can be added, for `keys` `[T, R, C]`.

    Each entry, in descending order of `keys`, is kept if its row and column are not full.
    """
    count, rows, cols = keys.shape
    order = keys.flatten(1).sort(dim=1, descending=True, stable=True).indices.T.contiguous()
    tiles = torch.arange(count, device=keys.device)
    # Indices of each entry's row and column, counted through all tiles; and how many more entries each may keep.
    row_index, col_index = order // cols + tiles * rows, order % cols + tiles * cols
    row_room = torch.full((count * rows,), tile.row_keep, dtype=torch.int8, device=keys.device)
    col_room = torch.full((count * cols,), tile.col_keep, dtype=torch.int8, device=keys.device)
    kept = torch.empty(order.shape, dtype=torch.int8, device=keys.device)
    for rank in range(rows * cols):
        row, col = row_index[rank], col_index[rank]
        room_of_row, room_of_col = row_room[row], col_room[col]
        is_kept = torch.minimum(room_of_row, room_of_col).clamp_(max=1)
        row_room[row] = room_of_row - is_kept
        col_room[col] = room_of_col - is_kept
        kept[rank] = is_kept
    mask = torch.empty((count, rows * cols), dtype=torch.bool, device=keys.device)
    return mask.scatter_(1, order.T, kept.T.bool()).view(keys.shape)
