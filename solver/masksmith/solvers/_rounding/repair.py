"""Fill what greedy leaves empty: insert two entries, drop one.

A maximal mask that is not full has a row i and a column j with room, and `S_ij = 1`. Among the columns that row i does
not use (all full, the mask being maximal) and the rows that column j does not use, there is always a kept entry
`(i', j')`: a column of them has `n_out` entries, and at most `n_out - 1` lie in rows that column j uses. Dropping it
makes room for `(i, j')` and `(i', j)`: one entry more, and the mask is maximal still.
"""

from __future__ import annotations

import torch

from masksmith.patterns import TileSpec


def fill_up(scores: torch.Tensor, mask: torch.Tensor, tile: TileSpec) -> torch.Tensor:
    """Swap until every tile is full or, where budgets are upper limits, until the next swap would not pay.

    Each swap serves the first row and the first column with room, by the best entry dropped, ties to the lowest index.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]`, maximal within the budgets; changed in place.
        tile: Budgets.

    Returns:
        The mask.
    """
    live = torch.arange(len(mask), device=mask.device)
    while True:
        row_room, col_room = mask[live].sum(2) < tile.row_keep, mask[live].sum(1) < tile.col_keep
        room = row_room.any(1) & col_room.any(1)
        live = live[room]
        if not len(live):
            return mask
        paid = _swap(scores, mask, live, first_true(row_room[room]), first_true(col_room[room]), tile.at_most)
        live = live[paid]


def _swap(
    scores: torch.Tensor, mask: torch.Tensor, live: torch.Tensor, i: torch.Tensor, j: torch.Tensor, must_pay: bool
) -> torch.Tensor:
    """Do the best swap for row `i[k]` and column `j[k]` of every tile `live[k]`; give `[K]` whether it was done."""
    w, kept, lane = scores[live], mask[live], torch.arange(len(live), device=live.device)
    gain = w[lane, i][:, None, :] + w[lane, :, j][:, :, None] - w
    allowed = kept & ~kept[lane, i][:, None, :] & ~kept[lane, :, j][:, :, None]
    gain = torch.where(allowed, gain, -torch.inf).flatten(1)
    peak = gain.amax(1)
    done = peak > (0.0 if must_pay else -torch.inf)
    best = first_true(gain == peak[:, None])[done]
    drop_row, drop_col = best // w.shape[2], best % w.shape[2]
    live, i, j = live[done], i[done], j[done]
    mask[live, drop_row, drop_col] = False
    mask[live, i, drop_col] = True
    mask[live, drop_row, j] = True
    return done


def first_true(flags: torch.Tensor) -> torch.Tensor:
    """Give the first index along axis 1 that is True, alike on every device (argmax leaves ties open)."""
    places = torch.arange(flags.shape[1], device=flags.device)
    return torch.where(flags, places, flags.shape[1]).amin(1)
