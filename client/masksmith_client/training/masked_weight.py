"""The product of mask and weight with the gradient rule of a method.

FSDP2 computes with whole weights; the sharded mask of such a weight is gathered at each use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .sharding import gather_mask

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Converts the gradient of the masked weight to that of the dense one, from gradient, weight and mask."""


class MaskedWeight(torch.autograd.Function):
    """`mask * weight` with a custom gradient rule; plain autograd would always multiply the gradient by the mask.

    Mask and key are what `Masking.mask_and_key` returns; the mask is saved for the backward pass in the same form.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mask: Tensor, key: str, rule: Rule) -> Tensor:
        """Return `mask * weight`."""
        return weight * mask_for(weight, mask, key)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str, Rule], output: Tensor) -> None:
        """Save what the backward pass needs; separate from `forward`, as `torch.func` requires."""
        weight, mask, ctx.key, ctx.rule = inputs
        ctx.save_for_backward(weight, mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Apply the gradient rule; mask, key and rule have no gradient."""
        weight, mask = ctx.saved_tensors
        return ctx.rule(gradient, weight, mask_for(weight, mask, ctx.key)), None, None, None


def mask_for(weight: Tensor, mask: Tensor, key: str) -> Tensor:
    """Return the mask of the entries that `weight` has, from what `Masking.mask_and_key` returned.

    An empty key means that `mask` has these entries already, and nothing is gathered.
    """
    return gather_mask(mask, key).to(weight.device) if key else mask
