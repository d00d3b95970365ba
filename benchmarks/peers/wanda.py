"""Wanda, after Sun, Liu, Bair and Kolter (ICLR 2024, arXiv 2306.11695): |weight| times the norm of its input."""

from __future__ import annotations

import torch

from .selection import Selection

Tensor = torch.Tensor


def wanda(weight: Tensor, gram: Tensor, selection: Selection) -> Tensor:
    """Return `[out, in]` with the largest entries of each row kept as they are."""
    return weight * wanda_mask(weight.float(), gram.float().diagonal(), selection)


def wanda_mask(weights: Tensor, squares: Tensor, selection: Selection) -> Tensor:
    """Return the mask, from the squared norms of the inputs."""
    return selection.largest_of_rows(weights.square() * squares)
