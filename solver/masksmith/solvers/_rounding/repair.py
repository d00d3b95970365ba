"""Repair of maximal masks that are not full, by swaps that insert two entries and drop one.

A mask is full if all its rows, or all its columns, use their budget. A mask that is not full has a row i and a column j
that are not; since it is maximal, it keeps `(i, j)`. Among the columns that row i does not use (which are full, since
the mask is maximal) and the rows that column j does not use, there is always a kept entry `(i', j')`: such a column has
`n_out` entries, its budget, of which at most `n_out - 1` are in rows that column j uses. Dropping this entry allows
`(i, j')` and `(i', j)`: one entry more, and the mask is still maximal.
"""

from __future__ import annotations

import torch

from masksmith.patterns import TileSpec


def fill_up(scores: torch.Tensor, mask: torch.Tensor, tile: TileSpec) -> torch.Tensor:
    """Swap until every tile is full or, with at-most budgets, until its best swap has no positive gain.

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
        row_room, col_room = mask[active].sum(2) < tile.row_keep, mask[active].sum(1) < tile.col_keep
        room = row_room.any(1) & col_room.any(1)
        active = active[room]
        if not len(active):
            return mask
        swapped = _swap(scores, mask, active, first_true(row_room[room]), first_true(col_room[room]), tile.at_most)
        active = active[swapped]


def _swap(
    scores: torch.Tensor, mask: torch.Tensor, active: torch.Tensor, i: torch.Tensor, j: torch.Tensor, must_improve: bool
) -> torch.Tensor:
    """Do the best swap for row `i[k]` and column `j[k]` of every tile `active[k]`; return `[K]` whether it was done."""
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
