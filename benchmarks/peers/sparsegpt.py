"""SparseGPT, after Frantar and Alistarh (ICML 2023, arXiv 2301.00774), algorithm 1."""

from __future__ import annotations

import torch

from .selection import Groups, Selection

Tensor = torch.Tensor

BLOCK = 128


def sparsegpt(weight: Tensor, gram: Tensor, selection: Selection, damping: float = 0.01) -> Tensor:
    """Prune `[out, in]` column by column, each error spread over the columns that follow.

    A group's mask is chosen when its first column is reached; a share's, for each block of columns.
    """
    damped, weights = gram.float().clone(), weight.float().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead], weights[:, dead] = 1, 0
    damped.diagonal().add_(damping * damped.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for first in range(0, weights.shape[1], BLOCK):
        last = min(first + BLOCK, weights.shape[1])
        block, errors = weights[:, first:last], torch.zeros_like(weights[:, first:last])
        own = factor[first:last, first:last]
        chosen_together = selection.m if isinstance(selection, Groups) else last - first
        mask = torch.ones_like(block, dtype=torch.bool)
        for column in range(last - first):
            if column % chosen_together == 0:
                group = slice(column, column + chosen_together)
                mask[:, group] = selection.largest(block[:, group].square() / own.diagonal()[group].square())
            kept = block[:, column] * mask[:, column]
            errors[:, column] = (block[:, column] - kept) / own[column, column]
            block[:, column + 1 :] -= errors[:, column, None] * own[column, column + 1 :]
            block[:, column] = kept
        weights[:, last:] -= errors @ factor[first:last, last:]
    return weights.to(weight.dtype)
