"""SparseSwaps, after Zimmer and others (arXiv 2512.10922): exchanges that lower a layer's squared error.

A row's error is `e G e^T` with `e` its dropped weights; each step makes the best exchange of a kept and a dropped
weight inside a group, in every row at once. The kept weights stay as they are. A share is kept of each row, which is
one group then; there each step looks at the `CANDIDATES` best weights to drop and to keep, taken alone.
"""

from __future__ import annotations

import torch

from .selection import Groups, Selection
from .wanda import wanda_mask

Tensor = torch.Tensor

STEPS, CANDIDATES = 100, 32


def sparse_swaps(weight: Tensor, gram: Tensor, selection: Selection, steps: int = STEPS) -> Tensor:
    """Prune `[out, in]`, from Wanda's mask."""
    weights, products = weight.float(), gram.float()
    kept = wanda_mask(weights, products.diagonal(), selection)
    group_size = selection.m if isinstance(selection, Groups) else weights.shape[1]
    dropped_products = (weights * ~kept) @ products
    rows = torch.arange(len(weights))
    for _ in range(steps):
        gain, first, second = _best_exchanges(weights, products, kept, dropped_products, group_size)
        better = gain < 0
        if not better.any():
            break
        at, dropped, added = rows[better], first[better], second[better]
        kept[at, dropped], kept[at, added] = False, True
        dropped_products[at] += (
            weights[at, dropped, None] * products[dropped] - weights[at, added, None] * products[added]
        )
    return (weights * kept).to(weight.dtype)


def _best_exchanges(
    weights: Tensor, products: Tensor, kept: Tensor, dropped_products: Tensor, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's largest change of the error, and the columns that are dropped and kept for it."""
    own, linear = weights.square() * products.diagonal(), 2 * weights * dropped_products
    drop_change, drop = _candidates((own + linear).masked_fill(~kept, torch.inf), group_size)
    keep_change, keep = _candidates((own - linear).masked_fill(kept, torch.inf), group_size)
    drop_weights, keep_weights = (weights.gather(1, places.flatten(1)).view_as(places) for places in (drop, keep))
    both = products[drop[..., :, None], keep[..., None, :]] * drop_weights[..., :, None] * keep_weights[..., None, :]
    change = drop_change[..., :, None] + keep_change[..., None, :] - 2 * both
    gain, place = change.flatten(1).min(dim=1)
    count = drop.shape[2]
    group, pair = place // count**2, place % count**2
    rows = torch.arange(len(weights))
    return gain, drop[rows, group, pair // count], keep[rows, group, pair % count]


def _candidates(changes: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Return the smallest changes of each group and their columns, both `[rows, groups, candidates]`."""
    groups = changes.reshape(len(changes), -1, group_size)
    smallest = groups.topk(min(group_size, CANDIDATES), dim=2, largest=False)
    first_columns = torch.arange(groups.shape[1])[:, None] * group_size
    return smallest.values, smallest.indices + first_columns
