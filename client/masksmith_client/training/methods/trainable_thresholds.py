"""Dynamic sparse training: a threshold for every output, trained with the weights, prunes inside the pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from masksmith_client.training.masked_layer import MaskedLayer
from masksmith_client.training.masking import Masking

from .method import Method
from .numbers import not_negative

EMPTY = 0.01
"""A layer that keeps a smaller share than this gets its thresholds back to zero, as in the paper."""


@dataclass(frozen=True)
class TrainableThresholds(Method):
    """Entries act where the pattern's mask keeps them and `|W| > t`, with one trained `t` an output (Liu et al., 2020).

    With `q = |W| - t`, `u = [q > 0]` and the estimator `h(q) = 2 - 4|q|` up to 0.4, `0.4` up to 1, 0 beyond:
    `W~ = m * u * W`, `dW = m * (u + |W| h(q)) * g`, `dt = -sum(m * W * h(q) * g) - strength * exp(-t)`; the last term
    is the gradient of the penalty `strength * sum(exp(-t))`, so the loss needs no change. The mask is refreshed for
    the scores `max(|W| - t, 0)`. What acts is a part of the pattern's mask: at most n of every m.

    The thresholds are parameters of the model, so the optimizer is to be made after the sparsifier.

    Attributes:
        strength: How hard thresholds are pushed up, at least 0; the densities of the report tell.

    Raises:
        InputError: If the strength is negative or not finite.
    """

    strength: float = 5e-6
    keeps_dense: ClassVar[bool] = True
    needs_optimizer: ClassVar[bool] = True
    gives_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Give the layer its thresholds, one an output."""
        zeros = weight.new_zeros((weight.shape[0], *[1] * (weight.ndim - 1)))
        masking.register_parameter("threshold", torch.nn.Parameter(zeros))

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Cut by mask and thresholds."""
        arguments = (weight, _threshold(masking), masking.mask, self.strength)
        masked: Tensor = ThresholdedWeight.apply(*arguments)  # type: ignore[no-untyped-call]
        return masked

    @torch.no_grad()
    def scores(self, layer: MaskedLayer, step: int) -> Tensor:
        """Score by how far entries lie above their thresholds."""
        return (layer.weight.abs() - _threshold(layer.masking)).clamp_min(0).float()

    @torch.no_grad()
    def settle(self, layer: MaskedLayer, previous: Tensor | None) -> None:
        """Start over with thresholds that have pruned a layer empty."""
        if self.kept(layer).float().mean() < EMPTY:
            _threshold(layer.masking).zero_()

    @torch.no_grad()
    def kept(self, layer: MaskedLayer) -> Tensor:
        """Give the entries that mask and thresholds keep."""
        above = layer.weight.abs() > _threshold(layer.masking)
        return super().kept(layer) if layer.masking.dense else layer.masking.mask & above


class ThresholdedWeight(torch.autograd.Function):
    """`m * [|W| > t] * W` with the estimator's gradients for `W` and `t`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, mask: Tensor, strength: float) -> Tensor:
        """Cut."""
        ctx.save_for_backward(weight, threshold, mask)
        ctx.strength = strength
        return weight * (mask & (weight.abs() > threshold))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Pass gradients to kept entries, and through the step function to weights and thresholds."""
        weight, threshold, mask = ctx.saved_tensors
        above = weight.abs() - threshold
        inside = gradient * mask
        through = inside * weight * _estimate(above)
        dims = tuple(range(1, weight.ndim))
        dense = inside * (above > 0) + through * weight.sign()
        return dense, -through.sum(dims, keepdim=True) - ctx.strength * torch.exp(-threshold), None, None


def _threshold(masking: Masking) -> Tensor:
    return masking.get_parameter("threshold")


def _estimate(above: Tensor) -> Tensor:
    size = above.abs()
    return torch.where(size <= 0.4, 2 - 4 * size, torch.where(size <= 1, 0.4, 0.0))
