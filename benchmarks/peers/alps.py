"""ALPS, after Meng, Behdin, Wang and Mazumder (NeurIPS 2024, arXiv 2406.07831), algorithms 1 and 2."""

from __future__ import annotations

import torch

from .selection import Selection

Tensor = torch.Tensor

EVERY, ROUNDS, REFINEMENTS = 3, 300, 10
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""The paper's step function: share of the support that changed in three rounds, factor of the penalty."""


def alps(weight: Tensor, gram: Tensor, selection: Selection, damping: float = 0.01, penalty: float = 0.03) -> Tensor:
    """Prune `[out, in]` by ADMM with one eigendecomposition, then refine on the support."""
    damped = gram.double().clone()
    damped.diagonal().add_(damping * gram.double().diagonal().mean())
    scale = damped.diagonal().sqrt()
    system = (damped / scale / scale[:, None]).float()
    dense = (weight.double() * scale).float()
    values, vectors = torch.linalg.eigh(system)
    target, duals = dense @ system, torch.zeros_like(dense)
    support = checked = selection.largest(dense.square())
    copy, inverse = dense * support, (vectors / (values + penalty)) @ vectors.T
    for number in range(1, ROUNDS + 1):
        free = (target + penalty * copy - duals) @ inverse
        shifted = free + duals / penalty
        support = selection.largest(shifted.square())
        copy = shifted * support
        duals = duals + penalty * (free - copy)
        if number % EVERY == 0:
            changed, checked = int((support != checked).sum()), support
            if changed == 0:
                break
            penalty *= next(factor for share, factor in GROWTH if changed >= share * int(support.sum()))
            inverse = (vectors / (values + penalty)) @ vectors.T
    return (_refined(system, target, copy, support).double() / scale).to(weight.dtype)


def _refined(system: Tensor, target: Tensor, weights: Tensor, support: Tensor) -> Tensor:
    """Run the paper's ten conjugate gradient steps on a fixed support."""
    residual = (target - weights @ system) * support
    direction, squared = residual, residual.square().sum(1, keepdim=True)
    for _ in range(REFINEMENTS):
        product = (direction @ system) * support
        length = squared / (direction * product).sum(1, keepdim=True).clamp(min=1e-30)
        weights, residual = weights + length * direction, residual - length * product
        before, squared = squared, residual.square().sum(1, keepdim=True)
        direction = residual + squared / before.clamp(min=1e-30) * direction
    return weights
