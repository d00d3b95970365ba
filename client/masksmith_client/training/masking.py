"""Parametrization that multiplies a weight by its mask; the training method defines the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


class MaskingMethod(Protocol):
    """The part of a training method that a masking calls."""

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Register additional parameters of the method."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Return the masked weight."""

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight."""


class Masking(torch.nn.Module):
    """Parametrization from a dense weight to the masked weight, unless masks are applied in place.

    Both products are sparse: the layer's output and the gradient of the layer's input use the masked weight. The
    method defines the gradient of the dense weight.

    Attributes:
        mask: True = kept. Not part of the model's state dict, since the sparsifier's state contains it.
        dense: Whether the mask is ignored, as in a dense phase or before the first masks.
        records_gradient: Whether the gradient of the masked weight is stored in `gradient`.
        gradient: The recorded gradient, dense; summed over micro-batches.
    """

    mask: Tensor

    def __init__(self, method: MaskingMethod, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)
        self.method = method
        self.dense = True
        self.records_gradient = False
        self.gradient: Tensor | None = None
        method.extend(self, weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer computes with."""
        return weight if self.dense else self.method.masked(weight, self)

    def backward_rule(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight, and record it if requested."""
        self.record_gradient(gradient)
        return self.method.gradient(gradient, weight, mask)

    def record_gradient(self, gradient: Tensor) -> None:
        """Add a gradient of the masked weight to the recorded one, if `records_gradient`."""
        if self.records_gradient:
            addend = gradient.detach()
            self.gradient = addend.clone() if self.gradient is None else self.gradient + addend


class MaskedWeight(torch.autograd.Function):
    """`mask * weight` with a custom gradient rule; plain autograd would always multiply the gradient by the mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, rule: Rule) -> Tensor:
        """Return `mask * weight`."""
        ctx.save_for_backward(weight, mask)
        ctx.rule = rule
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Apply the gradient rule; mask and rule have no gradient."""
        weight, mask = ctx.saved_tensors
        return ctx.rule(gradient, weight, mask), None, None
