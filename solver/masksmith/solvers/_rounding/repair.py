"""Repair of maximal masks that are not full, by swaps that insert two entries and drop one.

A mask is maximal if no entry can be added within the budgets. It is full if all its rows, or all its columns, use their
whole budget. A maximal mask that is not full has a row i and a column j that do not, and it keeps `(i, j)`. It also
keeps an entry `(i', j')` such that row i does not use column j', and column j does not use row i': since the mask is
maximal, column j' has `col_keep` entries, and since column j has fewer, one of them is in a row that column j does not
use. Dropping this entry allows `(i, j')` and `(i', j)`: one entry more, and the mask is still maximal.
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
    active = torch.arange(len(mask), device=mask.device)
    while True:
        row_has_room, col_has_room = mask[active].sum(2) < tile.row_keep, mask[active].sum(1) < tile.col_keep
        has_room = row_has_room.any(1) & col_has_room.any(1)
        active = active[has_room]
        if not len(active):
            return mask
        i, j = first_true(row_has_room[has_room]), first_true(col_has_room[has_room])
        active = active[_swap(scores, mask, active, i, j, tile.at_most)]


def _swap(
    scores: torch.Tensor, mask: torch.Tensor, active: torch.Tensor, i: torch.Tensor, j: torch.Tensor, must_improve: bool
) -> torch.Tensor:
    """Do the best swap for row `i[k]` and column `j[k]` of every tile `active[k]`; return whether each was done."""
    w, kept, lane = scores[active], mask[active], torch.arange(len(active), device=active.device)
    gain = w[lane, i][:, None, :] + w[lane, :, j][:, :, None] - w
    allowed = kept & ~kept[lane, i][:, None, :] & ~kept[lane, :, j][:, :, None]
    gain = torch.where(allowed, gain, -torch.inf).flatten(1)
    peak = gain.amax(1)
    done = peak > (0.0 if must_improve else -torch.inf)
    best = first_true(gain == peak[:, None])[done]
    drop_row, drop_col = best // w.shape[2], best % w.shape[2]
    active, i, j = active[done], i[done], j[done]
    mask[active, drop_row, drop_col] = False
    mask[active, i, drop_col] = True
    mask[active, drop_row, j] = True
    return done


def first_true(flags: torch.Tensor) -> torch.Tensor:
    """Return the first index along axis 1 that is True, the same on every device (argmax does not define ties).

    The length of the axis if none is True.
    """
    places = torch.arange(flags.shape[1], device=flags.device)
    return torch.where(flags, places, flags.shape[1]).amin(1)
