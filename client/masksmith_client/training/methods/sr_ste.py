"""SR-STE: straight through, with a decay that pulls the pruned entries to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .method import Method
from .numbers import not_negative


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
