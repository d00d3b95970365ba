"""Training under the mask: pruned entries neither act nor learn until a refresh brings them back."""

from __future__ import annotations

from dataclasses import dataclass

from .method import Method


@dataclass(frozen=True)
class Fixed(Method):
    """Only kept entries learn: `dW = m * g`.

    Pruned entries keep the values that they had when they were pruned, so a later refresh can bring them back as kept
    ones shrink; in place they are zeros, and stay pruned.
    """
