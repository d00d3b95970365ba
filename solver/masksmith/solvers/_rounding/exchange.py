"""Local search on full masks: exchange the places of two kept entries of two rows, while it pays."""

from __future__ import annotations

import torch

from .repair import first_true


def exchange(scores: torch.Tensor, mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Improve masks by 2 x 2 exchanges, the best one of each tile a step, ties to the lowest index.

    Rows i, k and columns a, b with `S_ia = S_kb = 1`, `S_ib = S_ka = 0` turn into the opposite; row and column sums
    stay. The gain splits into `max_b (w_ib - w_kb) + max_a (w_ka - w_ia)`, so that the best pair of rows is found in
    `O(R^2 C)`.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]`; changed in place.
        steps: Exchanges a tile at most.

    Returns:
        The mask.
    """
    live = torch.arange(len(mask), device=mask.device)
    for _ in range(steps):
        if not len(live):
            break
        live = live[_exchange_once(scores, mask, live)]
    return mask


def _exchange_once(scores: torch.Tensor, mask: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """Do the best exchange of every tile `live[k]`; give `[K]` whether it paid (and was done)."""
    w, kept = scores[live], mask[live]
    moves = torch.stack([_best_moves(w, kept, row) for row in range(w.shape[1])], 1)
    gain = (moves + moves.transpose(1, 2)).flatten(1)
    peak = gain.amax(1)
    paid = peak > 0
    pair = first_true(gain == peak[:, None])[paid]
    w, kept, live = w[paid], kept[paid], live[paid]
    i, k = pair // mask.shape[1], pair % mask.shape[1]
    lane = torch.arange(len(live), device=live.device)
    for gainer, giver in ((i, k), (k, i)):
        take = kept[lane, giver] & ~kept[lane, gainer]
        worth = torch.where(take, w[lane, gainer] - w[lane, giver], -torch.inf)
        column = first_true(worth == worth.amax(1, keepdim=True))
        mask[live, gainer, column] = True
        mask[live, giver, column] = False
    return paid


def _best_moves(w: torch.Tensor, kept: torch.Tensor, row: int) -> torch.Tensor:
    """Give `[K, R]`, the best that `row` gains by taking over a column from each other row, or -infinity."""
    may = kept & ~kept[:, row, None]
    return torch.where(may, w[:, row, None] - w, -torch.inf).amax(2)
