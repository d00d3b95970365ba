"""Local search on masks by 2 x 2 exchanges: each increases the score, and keeps the sums of rows and columns."""

from __future__ import annotations

import torch

from .repair import first_true


def exchange(scores: torch.Tensor, mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Improve masks by 2 x 2 exchanges, the best one of each tile per step, ties to the lowest index.

    An exchange inverts the four entries of rows i, k and columns a, b with `mask_ia = mask_kb = 1` and
    `mask_ib = mask_ka = 0`; row and column sums do not change. The largest gain for rows i, k is `max_b (score_ib -
    score_kb) + max_a (score_ka - score_ia)`, so finding the best pair of rows takes `O(R^2 C)`.

    Args:
        scores: `[T, R, C]` float64.
        mask: `[T, R, C]` bool; changed in place and returned.
        steps: Maximum number of exchanges per tile.

    Returns:
        `mask`.
    """
    active_tiles = torch.arange(len(mask), device=mask.device)
    for _ in range(steps):
        if not len(active_tiles):
            break
        active_tiles = active_tiles[_exchange_once(scores, mask, active_tiles)]
    return mask


def _exchange_once(scores: torch.Tensor, mask: torch.Tensor, active_tiles: torch.Tensor) -> torch.Tensor:
    """Do the best exchange of each active tile if its gain is positive; return bool `[A]`, whether it was done.

    Args:
        scores: As for `exchange`.
        mask: As for `exchange`.
        active_tiles: `[A]`, indices of tiles.
    """
    w, kept = scores[active_tiles], mask[active_tiles]
    moves = torch.stack([_best_moves(w, kept, row) for row in range(w.shape[1])], 1)
    gain = (moves + moves.transpose(1, 2)).flatten(1)
    peak = gain.amax(1)
    improved = peak > 0
    pair = first_true(gain == peak[:, None])[improved]
    w, kept, active_tiles = w[improved], kept[improved], active_tiles[improved]
    i, k = pair // mask.shape[1], pair % mask.shape[1]
    index = torch.arange(len(active_tiles), device=active_tiles.device)
    for receiver, donor in ((i, k), (k, i)):
        transferable = kept[index, donor] & ~kept[index, receiver]
        gains = torch.where(transferable, w[index, receiver] - w[index, donor], -torch.inf)
        column = first_true(gains == gains.amax(1, keepdim=True))
        mask[active_tiles, receiver, column] = True
        mask[active_tiles, donor, column] = False
    return improved


def _best_moves(w: torch.Tensor, kept: torch.Tensor, row: int) -> torch.Tensor:
    """Return `[A, R]`: the largest gain if `row` takes a kept column from each row; -infinity if it can take none."""
    allowed = kept & ~kept[:, row, None]
    return torch.where(allowed, w[:, row, None] - w, -torch.inf).amax(2)
