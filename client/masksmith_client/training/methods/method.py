"""What a method decides: the masked weight, the dense weight's gradient, the scores, and what a new mask changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from masksmith.patterns import Pattern
from masksmith_client.training.masked_layer import MaskedLayer
from masksmith_client.training.masking import MaskedWeight, Masking


class Method:
    """Base of all methods: masks cut the weight and its gradient, scores are magnitudes.

    Attributes:
        keeps_dense: Whether entries outside the mask go on learning, which rules masks in place out.
        needs_optimizer: Whether gradients are changed just before the optimizer's step.
        gives_scores: Whether scores are made here; else the weights are sent and their magnitudes count.
        needs_gradient: Whether scores need the dense gradient of the step before.
    """

    keeps_dense: ClassVar[bool] = False
    needs_optimizer: ClassVar[bool] = False
    gives_scores: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

    def check(self, pattern: Pattern) -> None:
        """Refuse patterns that the method cannot train.

        Raises:
            InputError: If it cannot.
        """

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Add parameters of the method's own to a layer."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Give the masked weight."""
        masked: Tensor = MaskedWeight.apply(weight, masking.mask, masking.backward_rule)  # type: ignore[no-untyped-call]
        return masked

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Turn the gradient of the masked weight into the dense weight's."""
        return gradient * mask

    def before_step(self, layer: MaskedLayer) -> None:
        """Change a layer's gradient, once an optimizer step, whatever was accumulated before."""

    def scores(self, layer: MaskedLayer, step: int) -> Tensor:
        """Score a layer's entries, if `gives_scores`: finite and not negative, float32 or float64."""
        raise NotImplementedError

    def settle(self, layer: MaskedLayer, previous: Tensor | None) -> None:
        """Change a layer's weights after its mask has changed; `previous` is None after a dense phase."""

    @torch.no_grad()
    def kept(self, layer: MaskedLayer) -> Tensor:
        """Give the entries that the layer computes with."""
        return torch.ones_like(layer.masking.mask) if layer.masking.dense else layer.masking.mask


@dataclass(frozen=True)
class Fixed(Method):
    """Only kept entries learn: `dW = m * g`.

    Pruned entries keep the values that they had when they were pruned, so a later refresh can bring them back as kept
    ones shrink; in place they are zeros, and stay pruned.
    """
