"""SparseSwaps for n:m masks, after Zimmer and others (arXiv 2512.10922): exchanges that lower a layer's squared error.

A row's error is `e G e^T` with `e` its dropped weights; each step makes the best exchange of a kept and a dropped
weight inside a group, in every row at once. The kept weights stay as they are.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor

STEPS = 100


def sparse_swaps(weight: Tensor, gram: Tensor, n: int, m: int, steps: int = STEPS) -> Tensor:
    """Prune `[out, in]` to n of every m, from Wanda's mask."""
    weights, products = weight.float(), gram.float()
    kept = _wanda_mask(weights, products.diagonal(), n, m)
    dropped_products = (weights * ~kept) @ products
    rows = torch.arange(len(weights))
    for _ in range(steps):
        gain, first, second = _best_exchanges(weights, products, kept, dropped_products, m)
        better = gain < 0
        if not better.any():
            break
        at, dropped, added = rows[better], first[better], second[better]
        kept[at, dropped], kept[at, added] = False, True
        dropped_products[at] += (
            weights[at, dropped, None] * products[dropped] - weights[at, added, None] * products[added]
        )
    return (weights * kept).to(weight.dtype)


def _wanda_mask(weights: Tensor, squares: Tensor, n: int, m: int) -> Tensor:
    scores = (weights.square() * squares).reshape(len(weights), -1, m)
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, scores.topk(n, dim=2).indices, value=True)
    return kept.reshape(weights.shape)


def _best_exchanges(
    weights: Tensor, products: Tensor, kept: Tensor, dropped_products: Tensor, m: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's largest change of the error, and the columns that are dropped and kept for it."""
    groups = weights.shape[1] // m
    own, linear = weights.square() * products.diagonal(), 2 * weights * dropped_products
    drop = (own + linear).masked_fill(~kept, torch.inf).reshape(-1, groups, m, 1)
    keep = (own - linear).masked_fill(kept, torch.inf).reshape(-1, groups, 1, m)
    inside = torch.stack([products[k : k + m, k : k + m] for k in range(0, len(products), m)])
    grouped = weights.reshape(-1, groups, m)
    change = drop + keep - 2 * grouped[..., :, None] * grouped[..., None, :] * inside
    gain, place = change.reshape(len(weights), -1).min(dim=1)
    first = place // (m * m) * m + place // m % m
    return gain, first, place // (m * m) * m + place % m
