"""Repair of maximal masks that are not full, by swaps that insert two entries and drop one.

A mask is maximal if no entry can be added within the budgets. It is full if all its rows, or all its columns, keep as
many entries as their budgets allow. A maximal mask that is not full has a row i and a column j that keep fewer, and it
keeps `(i, j)`. It also keeps an entry `(i', j')` while it drops `(i, j')` and `(i', j)`. To see this,
take a column j' for which `(i, j')` is dropped: since the mask is maximal, column j' keeps `col_keep` entries. Column j
keeps fewer, so column j' keeps an entry in a row i' for which `(i', j)` is dropped. A swap drops `(i', j')` and adds
`(i, j')` and `(i', j)`: the mask keeps one entry more, and is still maximal.
"""

from __future__ import annotations

import torch

from masksmith.patterns import TileSpec


def fill_up(scores: torch.Tensor, mask: torch.Tensor, tile: TileSpec) -> torch.Tensor:
    """Swap in every tile until it is full; with at-most budgets, only while its best swap has a positive gain.

    Each swap adds an entry to the first row and one to the first column that are not full; it drops the entry for which
    the gain is largest, ties to the lowest index.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]`, maximal within the budgets; changed in place.
        tile: Budgets.

    Returns:
        The mask.
    """
    active_tiles = torch.arange(len(mask), device=mask.device)
    while True:
        row_has_room = mask[active_tiles].sum(2) < tile.row_keep
        col_has_room = mask[active_tiles].sum(1) < tile.col_keep
        has_room = row_has_room.any(1) & col_has_room.any(1)
        active_tiles = active_tiles[has_room]
        if not len(active_tiles):
            return mask
        i, j = first_true(row_has_room[has_room]), first_true(col_has_room[has_room])
        active_tiles = active_tiles[_swap(scores, mask, active_tiles, i, j, tile.at_most)]


def _swap(
    scores: torch.Tensor,
    mask: torch.Tensor,
    active_tiles: torch.Tensor,
    i: torch.Tensor,
    j: torch.Tensor,
    must_improve: bool,
) -> torch.Tensor:
    """Do the best swap for row `i[k]` and column `j[k]` of every tile `active_tiles[k]`.

    Returns:
        Bool, whether the swap of each tile was done; it is not if no swap is allowed, or if it must improve the score
        and does not.
    """
    w, kept = scores[active_tiles], mask[active_tiles]
    index = torch.arange(len(active_tiles), device=active_tiles.device)
    gain = w[index, i][:, None, :] + w[index, :, j][:, :, None] - w
    allowed = kept & ~kept[index, i][:, None, :] & ~kept[index, :, j][:, :, None]
    gain = torch.where(allowed, gain, -torch.inf).flatten(1)
    peak = gain.amax(1)
    is_done = peak > (0.0 if must_improve else -torch.inf)
    best = first_true(gain == peak[:, None])[is_done]
    drop_row, drop_col = best // w.shape[2], best % w.shape[2]
    active_tiles, i, j = active_tiles[is_done], i[is_done], j[is_done]
    mask[active_tiles, drop_row, drop_col] = False
    mask[active_tiles, i, drop_col] = True
    mask[active_tiles, drop_row, j] = True
    return is_done


def first_true(flags: torch.Tensor) -> torch.Tensor:
    """Return the first index along axis 1 that is True, the same on every device (argmax does not define ties).

    The length of the axis if none is True.
    """
    places = torch.arange(flags.shape[1], device=flags.device)
    return torch.where(flags, places, flags.shape[1]).amin(1)
