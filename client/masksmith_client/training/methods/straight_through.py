"""Straight-through estimators: pruned entries learn as if they were kept, with or without a decay to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from masksmith_client.training.masked_layer import MaskedLayer

from .method import Method
from .numbers import not_negative


@dataclass(frozen=True)
class StraightThrough(Method):
    """All entries learn: `dW = g`, the gradient of the masked weight as it is (Bengio, Leonard and Courville, 2013)."""

    keeps_dense: ClassVar[bool] = True

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Pass the gradient through."""
        return gradient


@dataclass(frozen=True)
class SRSTE(Method):
    """Straight through, refined: `dW = g + decay * (1 - m) * W` (Zhou et al., ICLR 2021), in every backward pass.

    The decay steadies the masks: entries once pruned shrink, and come back only if the loss keeps pulling. It is part
    of the backward pass, as in the paper: each of several accumulated micro-batches adds it, and a scaler of mixed
    precision divides it; `MaskedDecay` is free of both.

    Attributes:
        decay: Strength, at least 0; the paper's 0.0002 unless given.

    Raises:
        InputError: If the decay is negative or not finite.
    """

    decay: float = 2e-4
    keeps_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_negative("decay", self.decay)

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Add the decay."""
        return torch.add(gradient, weight * ~mask, alpha=self.decay)


@dataclass(frozen=True)
class MaskedDecay(StraightThrough):
    """Straight through, and before every optimizer step `W.grad += decay * (1 - m) * W` (Hu et al., ICML 2024).

    Once a step, on the accumulated, unscaled and clipped gradient, so that Adam's normalisation applies to it. The
    flip rate in the report tells whether `decay` is right: the paper picks it in a short warm-up so that flips start
    near those of dense training and fade.

    Attributes:
        decay: Strength, at least 0.

    Raises:
        InputError: If the decay is negative or not finite.
    """

    decay: float = 2e-4
    needs_optimizer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_negative("decay", self.decay)

    @torch.no_grad()
    def before_step(self, layer: MaskedLayer) -> None:
        """Add the decay to the gradient."""
        if layer.weight.grad is not None and not layer.masking.dense:
            layer.weight.grad.add_(layer.weight * ~layer.masking.mask, alpha=self.decay)
