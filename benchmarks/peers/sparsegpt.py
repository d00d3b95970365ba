"""SparseGPT for n:m masks, after Frantar and Alistarh (ICML 2023, arXiv 2301.00774), algorithm 1."""

from __future__ import annotations

import torch

Tensor = torch.Tensor

BLOCK = 128


def sparsegpt(weight: Tensor, gram: Tensor, n: int, m: int, damping: float = 0.01) -> Tensor:
    """Prune `[out, in]` to n of every m, column by column, each error spread over the columns that follow."""
    damped, weights = gram.float().clone(), weight.float().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead], weights[:, dead] = 1, 0
    damped.diagonal().add_(damping * damped.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for first in range(0, weights.shape[1], BLOCK):
        last = min(first + BLOCK, weights.shape[1])
        block, errors = weights[:, first:last], torch.zeros_like(weights[:, first:last])
        own = factor[first:last, first:last]
        for column in range(last - first):
            if column % m == 0:
                group = slice(column, column + m)
                scores = block[:, group].square() / own.diagonal()[group].square()
                dropped = scores.topk(m - n, dim=1, largest=False).indices + column
                mask = torch.zeros_like(block, dtype=torch.bool).scatter_(1, dropped, value=True)
            kept = block[:, column].masked_fill(mask[:, column], 0)
            errors[:, column] = (block[:, column] - kept) / own[column, column]
            block[:, column + 1 :] -= errors[:, column, None] * own[column, column + 1 :]
            block[:, column] = kept
        weights[:, last:] -= errors @ factor[first:last, last:]
    return weights.to(weight.dtype)
