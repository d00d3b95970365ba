"""The straight-through estimator: pruned entries learn as if they were kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .method import Method


@dataclass(frozen=True)
class StraightThrough(Method):
    """All entries learn: `dW = g`, the gradient of the masked weight as it is (Bengio, Leonard and Courville, 2013)."""

    keeps_dense: ClassVar[bool] = True

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Pass the gradient through."""
        return gradient
