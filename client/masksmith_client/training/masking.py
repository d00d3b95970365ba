"""Mask of a weight, as a module that converts the dense weight to the masked one; the method defines the backward pass.

A deep copy of a model has copies of its maskings, each with a reference to the original masking. While the copy's
weights do not change, the copy is a snapshot and keeps its mask. Once they change, the copy is regarded as an
average of later weights, and takes the current mask of the original.
"""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from masksmith_client._errors import InputError

from .sharding import Sharding, as_sharded, is_dtensor, local, register_sharding, sharding_of

SAMPLE = 1024
"""Number of entries that are compared to see whether a weight has changed; of smaller weights, all entries."""
NOT_COPIED = ("_holders", "_origin", "gradient", "watches", "has_lost_write")
"""Attributes of a masking that copies do not take over."""


class Product(Protocol):
    """Computes the output of a linear layer by sparse kernels."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, masking: Masking) -> Tensor:
        """Return the output for inputs and the dense weight."""


class MaskingMethod(Protocol):
    """The functions of a training method that maskings and masked layers call."""

    def extend(self, masking: Masking, weight: Tensor) -> None:
        """Register on the masking the parameters that the method adds to the model."""

    def masked(self, weight: Tensor, masking: Masking) -> Tensor:
        """Return the masked weight."""

    def gradient(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight."""

    def kept(self, layer: Any) -> Tensor:
        """Return the mask of the entries that a `MaskedLayer` computes with."""


@dataclass
class _Origin:
    """The masking that a copy was made from, and a sample of the entries of the copy's weight.

    The sample is of the time when the copy last took the original's mask; if the weight differs from it later, the copy
    takes the mask again. None if the weight had no values, or was unknown.
    """

    masking: Masking
    sample: Tensor | None


class Masking(torch.nn.Module):
    """Converts a dense weight to the masked weight, unless masks are applied in place.

    The layer's output and the gradient of the layer's input are computed from the masked weight. The method defines the
    gradient of the dense weight.

    The mask moves with the module, but is not a buffer: code that averages a model's buffers would average masks. If
    the weight is sharded, each rank holds the mask of its own shard. FSDP2 computes with whole weights: there the mask
    is gathered when a layer's weight is masked, and again for its gradient.

    Attributes:
        mask: True = kept; this rank's part. Not in the model's state dict, since the sparsifier's state contains it.
        shape: The shape of the weight.
        output_axes: The dimensions of the weight along its outputs, and along its matrices if it is a stack.
        sharding: How the mask is divided among ranks; None if the weight is not a DTensor.
        dense: Whether the mask is ignored, as in a dense phase or before the first masks.
        records_gradient: Whether the gradient of the masked weight is stored in `gradient`.
        gradient: The recorded gradient, dense; summed over micro-batches.
        product: Computes the layer's output; None for the module's own `forward`.
        is_bypassed: Whether reading the module's parameter returns the dense values; true while a method such as
            `reset_parameters` initializes them again.
        has_restored_values: Whether a state of the sparsifier has restored values of pruned entries since the last
            optimizer step.
        lacks_restored_values: Whether a state dict of the model, loaded later, has overwritten these values by zeros.
        has_lost_write: Whether masked values, since deleted, were written to in place after the last check.
    """

    mask: Tensor
    # Models that an older version pickled lack these attributes, and have these defaults.
    sharding: Sharding | None = None
    output_axes: tuple[int, ...] = (0,)
    has_restored_values: bool = False
    lacks_restored_values: bool = False
    has_lost_write: bool = False
    _key: str = ""
    _holders: tuple[weakref.ref[torch.nn.Module], ...] = ()
    _parameter: str = ""

    def __init__(self, method: MaskingMethod, weight: Tensor, output_axes: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        part = local(weight.detach())
        self.mask = torch.ones(part.shape, dtype=torch.bool, device=part.device)
        self.shape, self.output_axes = tuple(weight.shape), output_axes
        self._set_sharding(sharding_of(weight))
        self.method = method
        self.dense = True
        self.records_gradient = False
        self.gradient: Tensor | None = None
        self.product: Product | None = None
        self.is_bypassed = False
        self._origin: _Origin | None = None
        method.extend(self, weight)

    def add_holder(self, module: torch.nn.Module, parameter: str) -> None:
        """Add a module that has the weight, under this name; several modules may share it."""
        existing = (holder for holder in self._holders if holder() is not None)
        self._holders, self._parameter = (*existing, weakref.ref(module)), parameter

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer computes with."""
        if self._origin is not None:
            self.follow_origin()
        return weight if self.dense else self.method.masked(weight, self)

    @torch.no_grad()
    def with_zeros(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer computes with, with zeros also where pruned entries are NaN or infinite.

        `forward` only multiplies by the mask. It takes half of the time of this method, but makes such entries NaN.
        """
        masked: Tensor = self(weight)
        return masked if self.dense else masked.masked_fill(~self.mask_of(weight), 0)

    def mask_of(self, weight: Tensor) -> Tensor:
        """Return the mask on the weight's device, and sharded as the weight is; see `placed_like`."""
        return self.placed_like(self.mask, weight)

    def placed_like(self, part: Tensor, weight: Tensor) -> Tensor:
        """Return a mask on the weight's device, sharded as the weight is.

        All ranks must call this together: if mask and weight are sharded in different ways, all parts are gathered.

        Args:
            part: This rank's part of a mask that is sharded as `self.mask` is.
            weight: The weight.
        """
        sharding = self.sharding
        if sharding is None:
            return as_sharded(part, weight)
        if sharding.is_sharding_of(weight):
            return sharding.as_dtensor(part)
        return as_sharded(sharding.gather(part), weight)

    def mask_and_key(self, weight: Tensor) -> tuple[Tensor, str]:
        """Return the arguments from which `masked_weight.mask_for` makes the mask of the entries of `weight`.

        If the weight is whole and the mask is divided among ranks: this rank's part of the mask, and the key with which
        the parts of all ranks are gathered. Otherwise: the mask of the entries of `weight`, and an empty key.
        """
        if not self._key or is_dtensor(weight):
            return self.mask_of(weight), ""
        return self.mask, self._key

    def whole_mask(self) -> Tensor:
        """Return the whole mask; all ranks must call this together."""
        return self.mask if self.sharding is None else self.sharding.gather(self.mask)

    def part_of(self, whole: Tensor) -> Tensor:
        """Return this rank's part of a whole mask, divided as `mask` is."""
        return whole if self.sharding is None else self.sharding.part_of(whole)

    @torch.no_grad()
    def follow_sharding(self, weight: Tensor) -> None:
        """Divide the mask among ranks as the weight is divided now; all ranks must call this together."""
        sharding = sharding_of(weight)
        if sharding != self.sharding:
            whole = self.whole_mask()
            self.mask = whole if sharding is None else sharding.part_of(whole)
            self._set_sharding(sharding)

    def _set_sharding(self, sharding: Sharding | None) -> None:
        self.sharding = sharding
        self._key = register_sharding(sharding) if sharding is not None and sharding.is_divided else ""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def follow_origin(self) -> None:
        """If this is a copy whose weight has changed since the copy last took the original's mask, take that mask.

        Raises:
            InputError: While `torch.export` traces a copy, since the program could not take later masks.
        """
        origin = self._origin
        if origin is not None and _is_exporting():
            raise InputError("torch.export cannot trace a masked copy of a model: bake the copy first, by bake(copy)")
        if origin is None or self._is_unchanged(origin):
            return
        origin.masking.follow_origin()
        self.mask = origin.masking.mask.to(self.mask.device, copy=True)
        self._set_sharding(origin.masking.sharding)
        self.dense = origin.masking.dense
        weight = self._held_weight()
        if weight is not None:
            self.follow_sharding(weight)
        origin.sample = self._sample()

    def is_copied_from_another(self, masking: Masking) -> bool:
        """Whether this is a copy, or a copy of a copy, of another masking than `masking`."""
        origin: Masking = self
        while origin._origin is not None:
            origin = origin._origin.masking
        return origin is not self and origin is not masking

    def backward_rule(self, gradient: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Convert the gradient of the masked weight to that of the dense weight, and record it if requested."""
        self.record_gradient(gradient)
        return self.method.gradient(gradient, weight, mask)

    def record_gradient(self, gradient: Tensor) -> None:
        """Add a gradient of the masked weight to the recorded gradient, if `records_gradient`."""
        if self.records_gradient:
            addend = gradient.detach()
            self.gradient = addend.clone() if self.gradient is None else self.gradient + addend

    def record_accumulated(self, weight: Tensor) -> None:
        """Record the sum of a weight's gradients over micro-batches, before `weight.grad` is masked.

        `weight.grad` is masked after every micro-batch, so at pruned entries it holds only this micro-batch's gradient;
        the recorded gradient holds the sum of the earlier ones.
        """
        if not self.records_gradient or weight.grad is None:
            return
        total = weight.grad.detach()
        if self.gradient is None or self.dense:
            self.gradient = total.clone()
        else:
            self.gradient = torch.where(self.mask_of(weight), total, self.gradient + total)

    def __deepcopy__(self, memo: dict[int, Any]) -> Masking:
        self.follow_origin()
        replica = type(self).__new__(type(self))
        memo[id(self)] = replica
        state = {name: value for name, value in self.__dict__.items() if name not in NOT_COPIED}
        replica.__dict__.update(copy.deepcopy(state, memo))
        replica.__dict__.update(gradient=None, records_gradient=False)
        replica.__dict__["_origin"] = _Origin(self, self._sample())
        return replica

    def __getstate__(self) -> dict[str, Any]:
        # A pickled copy is a snapshot.
        self.follow_origin()
        state = {name: value for name, value in self.__dict__.items() if name not in NOT_COPIED}
        return {**state, "_origin": None, "gradient": None, "records_gradient": False}

    def _replicate_for_data_parallel(self) -> Masking:
        # A replica has the attributes of the original, also its dict of watches, to which it must add nothing: a
        # replica is deleted earlier than the original.
        replica: Masking = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__.pop("watches", None)
        return replica

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Masking:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(self.mask).device
        if device.type != "meta":
            # A model that moves to the meta device has no values until weights are loaded again; the mask stays.
            self.mask = self.mask.to(device)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # A plain state dict lacks the parameters of the method, which the sparsifier's state has: they are not missing.
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, [], unexpected_keys, error_msgs)
        # The parameters of the module that is masked have been loaded before this call.
        self.lacks_restored_values = self.has_restored_values and not self._has_pruned_values()
        self.follow_origin()

    def __prepare_scriptable__(self) -> NoReturn:
        # torch.jit.script calls this of all modules before it compiles any.
        raise InputError(
            f"torch.jit.script cannot compile the masked {self._parameter or 'weight'}: bake the masks first, or use "
            "torch.jit.trace"
        )

    def note_restored_values(self) -> None:
        """Note that a state has restored the values of pruned entries, unless all of these are zero."""
        self.has_restored_values, self.lacks_restored_values = self._has_pruned_values(), False

    @torch.no_grad()
    def _has_pruned_values(self) -> bool:
        """Whether a pruned entry of this rank's part of the weight is not zero."""
        weight = self._held_weight()
        return weight is not None and not self.dense and bool(local(weight.detach())[~self.mask].any())

    def _is_unchanged(self, origin: _Origin) -> bool:
        current = self._sample()
        if current is None or origin.sample is None:
            return current is None and origin.sample is None
        before = origin.sample.to(current)
        return bool(((current == before) | (current.isnan() & before.isnan())).all())

    def _held_weight(self) -> Tensor | None:
        """Return the weight in the first of the modules that have it; None if none of them has it any more."""
        holders = (holder() for holder in self._holders)
        weights = (holder._parameters.get(self._parameter) for holder in holders if holder is not None)
        return next((weight for weight in weights if weight is not None), None)

    @torch.no_grad()
    def _sample(self) -> Tensor | None:
        weight = self._held_weight()
        if weight is None or weight.is_meta:
            return None
        entries = local(weight.detach()).reshape(-1)
        if len(entries) <= SAMPLE:
            return entries.clone()
        return entries[torch.from_numpy(_sample_positions(len(entries))).to(entries.device)]


def _is_exporting() -> bool:
    # torch 2.6 lacks this function; there, `torch.export` fails on such a copy with an error of its own.
    is_exporting: Callable[[], bool] | None = getattr(torch.compiler, "is_exporting", None)
    return is_exporting is not None and is_exporting()


@cache
def _sample_positions(count: int) -> npt.NDArray[np.int64]:
    """Return `SAMPLE` different places among `count` entries, the same at each call.

    They are drawn at random: places at equal distances may all be in a few columns, which may never change, as those of
    inputs that are always 0.
    """
    return np.array(sorted(random.Random(0).sample(range(count), SAMPLE)))
