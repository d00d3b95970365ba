"""The mask of one weight: multiplied in on the forward pass; the method decides the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


class MaskingMethod(Protocol):
    """What a masking needs of its method."""

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Add parameters of the method's own."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Give the masked weight."""

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Turn the gradient of the masked weight into the dense weight's."""


class Masking(torch.nn.Module):
    """Turns a dense weight into a masked one; a parametrization of the weight, unless masks are applied in place.

    Products with the masked weight are sparse both ways: the layer's output uses it, and so does the gradient that
    autograd passes on to the layer's input. What the dense weight receives is the method's to say.

    Attributes:
        mask: True = kept; left out of the model's own state dict, for the sparsifier's has it with its pattern.
        dense: Whether the mask is set aside, as in a dense phase or before the first masks.
        wants_gradient: Whether the next gradient of the masked weight is kept in `gradient`.
        gradient: That gradient, dense.
    """

    mask: Tensor

    def __init__(self, method: MaskingMethod, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)
        self.method = method
        self.dense = True
        self.wants_gradient = False
        self.gradient: Tensor | None = None
        method.extend(self, weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Give the weight that the layer computes with."""
        return weight if self.dense else self.method.masked(weight, self)

    def backward_rule(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Turn the gradient of the masked weight into that of the dense one, and keep it where it is wanted."""
        self.see(gradient)
        return self.method.gradient(gradient, weight, mask)

    def see(self, gradient: Tensor) -> None:
        """Add a gradient of the masked weight to the one that is wanted; micro-batches sum up."""
        if self.wants_gradient:
            seen = gradient.detach()
            self.gradient = seen.clone() if self.gradient is None else self.gradient + seen


class MaskedWeight(torch.autograd.Function):
    """`mask * weight`, whose gradient a rule decides; plain autograd would always cut it by the mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, rule: Rule) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(weight, mask)
        ctx.rule = rule
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Apply the rule."""
        weight, mask = ctx.saved_tensors
        return ctx.rule(gradient, weight, mask), None, None
