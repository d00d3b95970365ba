"""Parametrization that multiplies a weight by its mask; the training method defines the backward pass."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from .sharding import local

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]

SAMPLES = 64
"""Entries of a copied weight that show whether the copy has been changed since."""


class MaskingMethod(Protocol):
    """The part of a training method that a masking calls."""

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Register additional parameters of the method."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Return the masked weight."""

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight."""


class Masking(torch.nn.Module):
    """Parametrization from a dense weight to the masked weight, unless masks are applied in place.

    Both products are sparse: the layer's output and the gradient of the layer's input use the masked weight. The
    method defines the gradient of the dense weight.

    A copy of the model (`copy.deepcopy`, `AveragedModel`) keeps the mask that it was copied with while its weights stay
    as they were; once they have been changed, as in a moving average, it uses the present mask of the original.

    Attributes:
        mask: True = kept; all True while the layer is dense. Not part of the model's state dict, since the
            sparsifier's state contains it.
        is_dense: Whether the layer has no mask, as in a dense phase or before the first masks; a buffer, so that copies
            of the model and their averages carry it.
        records_gradient: Whether the gradient of the masked weight is stored in `gradient`.
        gradient: The recorded gradient, dense; summed over micro-batches.
    """

    mask: Tensor
    is_dense: Tensor

    def __init__(self, method: MaskingMethod, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)
        self.register_buffer("is_dense", torch.ones((), dtype=torch.bool, device=weight.device), persistent=False)
        self.method = method
        self.records_gradient = False
        self.gradient: Tensor | None = None
        self._module: tuple[weakref.ref[torch.nn.Module], str] | None = None
        self._original: tuple[Masking, Tensor] | None = None
        method.extend(self, weight)

    @property
    def dense(self) -> bool:
        """Whether the layer has no mask."""
        return bool(self.is_dense)

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Use a new mask."""
        self.mask.copy_(mask)
        self.is_dense.fill_(False)

    @torch.no_grad()
    def make_dense(self) -> None:
        """Use no mask."""
        self.mask.fill_(True)
        self.is_dense.fill_(True)

    def belongs_to(self, module: torch.nn.Module, attribute: str) -> None:
        """Note the module whose weight this masks."""
        self._module = weakref.ref(module), attribute

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer computes with."""
        if self._original is not None:
            self._follow_original(weight)
        return self.method.masked(weight, self)

    def backward_rule(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight, and record it if requested."""
        self.record_gradient(gradient)
        return self.method.gradient(gradient, weight, mask)

    def record_gradient(self, gradient: Tensor) -> None:
        """Add a gradient of the masked weight to the recorded one, if `records_gradient`."""
        if self.records_gradient:
            addend = gradient.detach()
            self.gradient = addend.clone() if self.gradient is None else self.gradient + addend

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        module = None if self._module is None else self._module[0]()
        if module is not None and self._module is not None:
            weight = module.parametrizations[self._module[1]].original  # type: ignore[index,union-attr]
            copied._original = self, _samples(weight)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gradient": None, "_module": None, "_original": None}

    @torch.no_grad()
    def _follow_original(self, weight: Tensor) -> None:
        assert self._original is not None
        original, copied_samples = self._original
        samples = _samples(weight)
        if not torch.equal(samples, copied_samples.to(weight.dtype).to(samples.dtype)):
            self.mask.copy_(original.mask)
            self.is_dense.copy_(original.is_dense)


class MaskedWeight(torch.autograd.Function):
    """`mask * weight` with a custom gradient rule; plain autograd would always multiply the gradient by the mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, rule: Rule) -> Tensor:
        """Return `mask * weight`."""
        ctx.save_for_backward(weight, mask)
        ctx.rule = rule
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Apply the gradient rule; mask and rule have no gradient."""
        weight, mask = ctx.saved_tensors
        return ctx.rule(gradient, weight, mask), None, None


def _samples(weight: Tensor) -> Tensor:
    """Return some entries of a weight, on the CPU in float64."""
    entries = local(weight.detach()).reshape(-1)
    return entries[:: max(1, entries.numel() // SAMPLES)].to("cpu", torch.float64)
