"""Dynamic sparse training: one trainable pruning threshold per output, in addition to the pattern's mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from masksmith_client._errors import InputError
from masksmith_client.training.masked_layer import MaskedLayer
from masksmith_client.training.masked_weight import mask_for
from masksmith_client.training.masking import Masking
from masksmith_client.training.sharding import as_sharded, gathered, gathered_mask, is_dtensor

from .method import Method, as_float
from .numbers import check_not_negative

MIN_DENSITY = 0.01
"""Thresholds of a layer with a smaller density are reset to zero, as Liu et al. do."""


@dataclass(frozen=True)
class TrainableThresholds(Method):
    """Entries are kept where the mask keeps them and `|W| > t`, with one trained `t` per output (Liu et al., 2020).

    `W` is the dense weight, `m` the mask (1 = kept), `q = |W| - t`, and `u = [q > 0]`. The layer computes with
    `W~ = m * u * W`. With the gradient `g` of `W~`, the gradients of `W` and `t` are `dW = m * (u + |W| h(q)) * g` and
    `dt = -sum(m * W * h(q) * g) - strength * exp(-t)`. Here `h(q)` estimates the derivative of `u`: `2 - 4|q|` for
    `|q| <= 0.4`, `0.4` for `|q| <= 1`, else 0. The last term of `dt` is the gradient of the penalty
    `strength * sum(exp(-t))`, so the loss needs no change. The mask is refreshed for the scores `max(|W| - t, 0)`. The
    entries kept are a subset of the pattern's mask: under n:m, at most n of every m.

    The gradient of the penalty is added in the backward pass of each use of the weight. So it is added more than once
    per step if gradients are accumulated, if a layer is called several times, or if layers share a weight. With a
    mixed-precision gradient scaler the penalty is too small: its gradient is divided by the scale.

    The thresholds are parameters of the model, so the optimizer must be created after the sparsifier.

    Attributes:
        strength: Weight of the penalty that increases thresholds, at least 0; its effect shows in the report's
            densities.

    Raises:
        InputError: If the strength is negative or not finite.
    """

    strength: float = 5e-6
    # The strength as a text; see `masked`.
    _strength: str = field(init=False, repr=False, compare=False)
    keeps_dense: ClassVar[bool] = True
    needs_optimizer: ClassVar[bool] = True
    gives_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_not_negative("strength", self.strength)
        object.__setattr__(self, "_strength", repr(float(self.strength)))

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Register the layer's thresholds, one per output, all 0.

        Raises:
            InputError: If the weight is sharded already.
        """
        if is_dtensor(weight):
            raise InputError("TrainableThresholds adds parameters: create the Sparsifier before fully_shard")
        zeros = weight.new_zeros([size if axis in masking.output_axes else 1 for axis, size in enumerate(weight.shape)])
        masking.register_parameter("threshold", torch.nn.Parameter(zeros))

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Return the weight with zeros where mask or thresholds prune."""
        # torch.compile treats a text as a constant, but a float as a symbol as soon as it sees a second value, and an
        # autograd function cannot have symbols.
        arguments = (weight, _threshold_like(masking, weight), *masking.mask_and_key(weight), float(self._strength))
        masked: Tensor = ThresholdedWeight.apply(*arguments)  # type: ignore[no-untyped-call]
        return masked

    @torch.no_grad()
    def scores(self, layer: MaskedLayer, step: int) -> Tensor:
        """Score entries by `max(|W| - t, 0)`."""
        threshold = gathered(_threshold(layer.masking))
        return (as_float(layer.whole_weight()).abs() - as_float(threshold)).clamp_min(0)

    @torch.no_grad()
    def settle(self, layer: MaskedLayer, previous: Tensor | None) -> None:
        """Reset the thresholds of a layer to 0 if its density is less than `MIN_DENSITY`."""
        if gathered_mask(self.kept(layer)).float().mean() < MIN_DENSITY:
            _threshold(layer.masking).zero_()

    @torch.no_grad()
    def kept(self, layer: MaskedLayer) -> Tensor:
        """Return the mask of the entries that mask and thresholds keep, sharded as the weight is.

        While the mask is ignored, the thresholds are ignored, too, and all entries are kept.
        """
        if layer.masking.dense:
            return super().kept(layer)
        above = layer.whole_weight().abs() > gathered(_threshold(layer.masking))
        return layer.mask & as_sharded(above, layer.weight)


class ThresholdedWeight(torch.autograd.Function):
    """`m * [|W| > t] * W` with the gradients of `TrainableThresholds` for `W` and `t`, the penalty's included."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, threshold: Tensor, mask: Tensor, key: str, strength: float) -> Tensor:
        """Return `m * [|W| > t] * W`, with the mask as `Masking.mask_and_key` returns it."""
        return weight * (mask_for(weight, mask, key) & (weight.abs() > threshold))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str, float], output: Tensor) -> None:
        """Save what the backward pass needs; separate from `forward`, as `torch.func` requires."""
        *tensors, ctx.key, ctx.strength = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of weight and threshold; the other arguments have none."""
        weight, threshold, mask = ctx.saved_tensors
        excess = weight.abs() - threshold
        masked_gradient = gradient * mask_for(weight, mask, ctx.key)
        excess_gradient = masked_gradient * weight * _step_derivative(excess)
        dims = tuple(axis for axis in range(weight.ndim) if threshold.shape[axis] == 1)
        weight_gradient = masked_gradient * (excess > 0) + excess_gradient * weight.sign()
        threshold_gradient = -excess_gradient.sum(dims, keepdim=True) - ctx.strength * torch.exp(-threshold)
        return weight_gradient, threshold_gradient, None, None, None


def _threshold(masking: Masking) -> Tensor:
    # Not necessarily a parameter: torch.func and DataParallel replace parameters by tensors.
    threshold: Tensor = masking.threshold  # type: ignore[assignment]
    return threshold


def _threshold_like(masking: Masking, weight: Tensor) -> Tensor:
    """Return the thresholds on the weight's device, and whole if the weight is whole.

    The weight may be a replica's on another device, or gathered by FSDP2 while the thresholds are sharded.
    """
    threshold = _threshold(masking)
    return threshold if is_dtensor(weight) else as_sharded(gathered(threshold), weight)


def _step_derivative(excess: Tensor) -> Tensor:
    """Return `h(excess)`, the estimate of the derivative of `[excess > 0]`, in float32, or in float64 if it is that."""
    size = excess.abs().to(torch.promote_types(excess.dtype, torch.float32))
    # Of two numbers, `torch.where` makes a tensor of torch's default dtype.
    return torch.where(size <= 0.4, 2 - 4 * size, 0.4).where(size <= 1, 0.0)
