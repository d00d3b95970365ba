"""Straight-through estimators: pruned entries are trained like kept ones, optionally with a decay to zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from masksmith_client.training.masked_layer import MaskedLayer

from .method import Method
from .numbers import check_not_negative


@dataclass(frozen=True)
class StraightThrough(Method):
    """All entries are trained: `dW = g` (Bengio et al., 2013).

    `dW` is the gradient of the dense weight `W`, and `g` the gradient with respect to the masked weight.
    """

    keeps_dense: ClassVar[bool] = True

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Return the gradient unchanged."""
        return gradient


@dataclass(frozen=True)
class SRSTE(Method):
    """Sparse-refined straight-through estimator: `dW = g + decay * (1 - m) * W` (Zhou et al., ICLR 2021).

    `dW` is the gradient of the dense weight `W`, `g` the gradient with respect to the masked weight, and `m` the mask
    (1 = kept). The decay stabilizes the masks: pruned entries shrink, and are kept again only if their gradients
    persist.

    As in the code of the paper, the decay is added in the backward pass of each use of the weight; the paper's formula
    has it once per step. So the decay is added more than once per step if gradients are accumulated (once per
    micro-batch), if a layer is called several times, or if layers share a weight (once per call). With a
    mixed-precision gradient scaler the decay is too small: it is divided by the scale with the gradient. With an
    optimizer that has `maximize=True`, pruned entries would grow, so a sparsifier refuses to watch such an optimizer,
    and raises an error if one does a step. `MaskedDecay` has none of these effects.

    Attributes:
        decay: Strength, at least 0; default 0.0002 as in the paper.

    Raises:
        InputError: If the decay is negative or not finite.
    """

    decay: float = 2e-4
    _decay_text: str = field(init=False, repr=False, compare=False)
    keeps_dense: ClassVar[bool] = True
    supports_ascent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_not_negative("decay", self.decay)
        object.__setattr__(self, "_decay_text", repr(float(self.decay)))

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Return `g + decay * (1 - m) * W`."""
        # torch.compile treats a str as a constant. A float attribute that differs between two models becomes a symbol
        # of the graph, which fails in the backward rule of an autograd function.
        # With `alpha=` of torch.add, inductor of torch 2.13 computes a different gradient on CPUs.
        return gradient + weight * ~mask * float(self._decay_text)


@dataclass(frozen=True)
class MaskedDecay(StraightThrough):
    """Straight-through estimator with `W.grad += decay * (1 - m) * W` before optimizer steps (Hu et al., ICML 2024).

    `W` is the dense weight, `m` the mask (1 = kept). The decay is added once per step, after accumulation and clipping,
    so that Adam's normalization applies to it. If a gradient scaler has not divided the gradient by its scale yet (with
    fused optimizers), the decay is multiplied by the scale, so that it is right after the division. The flip rate in
    the sparsifier's report helps to set `decay`: the paper selects a value, in a short warm-up, with which the flip
    rate starts near that of dense training and decreases.

    Attributes:
        decay: Strength, at least 0.

    Raises:
        InputError: If the decay is negative or not finite.
    """

    decay: float = 2e-4
    needs_optimizer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_not_negative("decay", self.decay)

    @torch.no_grad()
    def before_step(self, layer: MaskedLayer) -> None:
        """Add the decay to the layer's gradient, if it has one and is not dense."""
        weight = layer.weight
        if weight.grad is not None and not layer.masking.dense:
            # Not `pruned * scale * decay` in the weight's dtype: in float16 the first product overflows.
            dtype, scale = torch.promote_types(weight.dtype, torch.float32), layer.gradient_scale
            factor = self.decay * (scale.to(dtype) if isinstance(scale, Tensor) else scale)
            pruned = (weight.detach() * ~layer.mask).to(dtype)
            weight.grad.add_((pruned * factor).to(weight.grad.dtype))
