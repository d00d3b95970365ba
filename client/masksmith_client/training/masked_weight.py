"""The product of mask and weight, with a gradient of the method's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


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
