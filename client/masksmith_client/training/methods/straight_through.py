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
    """All entries are trained: `dW = g`, the gradient of the masked weight (Bengio, Leonard and Courville, 2013)."""

    keeps_dense: ClassVar[bool] = True

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Return the gradient unchanged."""
        return gradient


@dataclass(frozen=True)
class SRSTE(Method):
    """Sparse-refined straight-through estimator: `dW = g + decay * (1 - m) * W` (Zhou et al., ICLR 2021).

    The decay stabilizes the masks: pruned entries shrink, and are kept again only if their gradients persist. As in
    the paper it is added in every backward pass, hence once per accumulated micro-batch, it is divided by the scale
    of a mixed-precision gradient scaler, and an optimizer with `maximize=True` would ascend it, so that pruned entries
    grow: a watched one is refused. `MaskedDecay` avoids these.

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
        # With `alpha=` of torch.add, inductor of torch 2.13 computes another gradient on CPUs.
        return gradient + weight * ~mask * float(self._decay_text)


@dataclass(frozen=True)
class MaskedDecay(StraightThrough):
    """Straight-through estimator with `W.grad += decay * (1 - m) * W` before optimizer steps (Hu et al., ICML 2024).

    It is added once per step, after accumulation and clipping, so that Adam's normalization applies to it; where a
    gradient scaler's factor is still in the gradient (fused optimizers), the decay gets it, too. The flip rate in the
    report helps to set `decay`: the paper selects it in a short warm-up so that the rate starts near that of dense
    training and decreases.

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
        """Add the decay to the layer's gradient."""
        weight = layer.weight
        if weight.grad is not None and not layer.masking.dense:
            pruned = weight.detach() * ~layer.mask
            weight.grad.add_((pruned * layer.gradient_scale).to(weight.grad.dtype), alpha=self.decay)
