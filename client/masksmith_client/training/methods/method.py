"""Base class of training methods, the method that trains kept entries only, and the check of a sparsifier's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from masksmith.patterns import Pattern
from masksmith_client._errors import InputError
from masksmith_client.training.masked_layer import MaskedLayer
from masksmith_client.training.masked_weight import MaskedWeight
from masksmith_client.training.masking import Masking

from .numbers import check_not_negative


class Method:
    """Base class of methods: weight and gradient are multiplied by the mask, scores are magnitudes.

    Attributes:
        keeps_dense: Whether pruned entries are trained, too, which excludes masks in place.
        needs_optimizer: Whether the optimizer must be watched: for `before_step`, or for parameters that `extend` adds.
        gives_scores: Whether `scores` is implemented; otherwise entries are scored by magnitude.
        needs_gradient: Whether `scores` needs the dense gradient of the step after which masks are requested.
        supports_ascent: Whether masked weights may be trained by an optimizer that ascends gradients (`maximize=True`).
    """

    keeps_dense: ClassVar[bool] = False
    needs_optimizer: ClassVar[bool] = False
    gives_scores: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    supports_ascent: ClassVar[bool] = True

    def check(self, pattern: Pattern) -> None:
        """Check that the method supports the pattern.

        Raises:
            InputError: If the method does not support it.
        """

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Register additional parameters of the method on a layer's masking."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Return the masked weight."""
        masked: Tensor = MaskedWeight.apply(weight, *masking.mask_and_key(weight), masking.backward_rule)  # type: ignore[no-untyped-call]
        return masked

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight."""
        return gradient * mask

    def before_step(self, layer: MaskedLayer) -> None:
        """Modify a layer's accumulated gradient before the step of a watched optimizer.

        A term that is added to the gradient must be multiplied by `layer.gradient_scale`.
        """

    def scores(self, layer: MaskedLayer, step: int) -> Tensor:
        """Return scores of a layer's entries, if `gives_scores`: finite and non-negative, float32 or float64."""
        raise NotImplementedError

    def settle(self, layer: MaskedLayer, previous: Tensor | None) -> None:
        """Modify a layer's weights, or parameters that `extend` added, after the layer has got a new mask.

        Args:
            layer: The layer.
            previous: The part of the previous mask that this rank holds; None if the layer was dense.
        """

    @torch.no_grad()
    def kept(self, layer: MaskedLayer) -> Tensor:
        """Return the mask of the entries that the layer computes with, sharded as its weight is."""
        return torch.ones_like(layer.weight, dtype=torch.bool) if layer.masking.dense else layer.mask


def as_float(values: Tensor) -> Tensor:
    """Return values in which scores are computed without rounding: float64 as they are, others as float32."""
    return values if values.dtype == torch.float64 else values.float()


def check_options(method: Method, pattern: Pattern, in_place: bool, hysteresis: float, scores: object) -> None:
    """Check the options of a sparsifier that concern its method, and that the method supports the pattern.

    Raises:
        InputError: If an option is invalid, or the method does not support it or the pattern.
    """
    name = type(method).__name__
    if in_place and method.keeps_dense:
        raise InputError(f"{name} also trains the pruned weights, which in_place=True would set to zero")
    if scores is not None and method.gives_scores:
        raise InputError(f"{name} computes its own scores: leave scores= out")
    if scores is not None and not callable(scores):
        raise InputError(f"scores={scores!r} cannot be called: pass a function of a weight's name and value")
    check_not_negative("hysteresis", hysteresis)
    method.check(pattern)


@dataclass(frozen=True)
class Fixed(Method):
    """Only kept entries are trained, and the values of pruned ones stay fixed, until a refresh: `dW = m * g`.

    `dW` is the gradient of the dense weight `W`, `m` the mask (1 = kept), and `g` the gradient of the masked weight.

    Pruned entries are stored, and their gradient is 0, so a later refresh can keep them again when kept entries have
    become smaller. With masks in place they are zero and stay pruned.
    """
