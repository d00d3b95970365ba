"""Gathers and shards tensors that FSDP2 or tensor parallelism divides among ranks (DTensors)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


def is_dtensor(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor or of a subclass; `torch.distributed.tensor` need not be imported for this."""
    return type(tensor).__name__ == "DTensor" or hasattr(tensor, "placements")


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole tensor; all ranks must call this together for a DTensor. A plain tensor is returned as it is."""
    sharded: Any = tensor
    return sharded.full_tensor() if is_dtensor(tensor) else tensor


def gathered_mask(mask: Tensor) -> Tensor:
    """Return the whole mask, as `gathered` does, but with fewer bytes sent (`Sharding.gather`)."""
    sharding = sharding_of(mask)
    return mask if sharding is None else sharding.gather(local(mask))


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor; a plain tensor is returned as it is."""
    sharded: Any = tensor
    return sharded.to_local() if is_dtensor(tensor) else tensor


def reshard(model: torch.nn.Module) -> None:
    """Give modules of FSDP2 their own, sharded weights back, where whole ones take their place for a while.

    A forward pass puts whole copies of the weights, perhaps in another dtype, in the place of the weights. After a
    forward pass without a backward pass, such as an evaluation, these copies stay there until the next use.
    """
    for module in model.modules():
        # `fully_shard` derives a module's class from this one; `torch.distributed.fsdp` need not be imported for this.
        if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            sharded: Any = module
            sharded.reshard()


def as_sharded(whole: Tensor, like: Tensor) -> Tensor:
    """Return a tensor on the device of `like`, sharded as `like` is; whole if `like` is a plain tensor.

    Every rank must have all of `whole`; each takes its own part, and ranks exchange no data.
    """
    on_device = whole if whole.device == like.device else whole.to(like.device)
    if not is_dtensor(like):
        return on_device
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    return distribute_tensor(on_device, sharded.device_mesh, sharded.placements, src_data_rank=None)


@dataclass(frozen=True)
class Sharding:
    """How a tensor is divided among ranks.

    Attributes:
        mesh: The `DeviceMesh` of the ranks.
        placements: The placement along each dimension of the mesh.
        shape: The shape of the whole tensor.
    """

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]

    def is_sharding_of(self, tensor: Tensor) -> bool:
        """Whether a tensor of the same shape is divided in this way."""
        sharded: Any = tensor
        return is_dtensor(tensor) and self.mesh == sharded.device_mesh and self.placements == tuple(sharded.placements)

    @property
    def is_divided(self) -> bool:
        """Whether ranks hold less than the whole tensor."""
        # Only the placement `Shard` has `dim`, the axis of the tensor that it divides.
        return any(
            hasattr(placement, "dim") and self.mesh.size(mesh_axis) > 1
            for mesh_axis, placement in enumerate(self.placements)
        )

    def part_of(self, whole: Tensor) -> Tensor:
        """Return a copy of this rank's part of a whole tensor."""
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = distribute_tensor(whole, self.mesh, self.placements, src_data_rank=None)
        return sharded.to_local().clone(memory_format=torch.contiguous_format)  # type: ignore[no-any-return]

    def as_dtensor(self, part: Tensor) -> Tensor:
        """Return the DTensor whose part on this rank is `part`."""
        from torch.distributed.tensor import DTensor

        shape, strides = torch.Size(self.shape), _strides(self.shape)
        return DTensor.from_local(part, self.mesh, self.placements, run_check=False, shape=shape, stride=strides)

    def gather(self, part: Tensor) -> Tensor:
        """Return the whole mask from the parts of all ranks, which must call this together.

        Args:
            part: This rank's part, bool. Its entries are packed, eight in a byte, along the last axis that is not
                divided: along a divided axis, the parts of two ranks could share a byte. If all axes are divided, each
                entry is sent as a byte.
        """
        if not self.is_divided:
            return part
        divided_axes = {placement.dim % len(self.shape) for placement in self.placements if hasattr(placement, "dim")}
        axis = next((axis for axis in reversed(range(len(self.shape))) if axis not in divided_axes), None)
        if axis is None:
            return gathered(self.as_dtensor(part.to(torch.uint8))).bool()
        shape = list(self.shape)
        shape[axis] = -(-shape[axis] // 8)
        packed = replace(self, shape=tuple(shape)).as_dtensor(_pack(part, axis))
        return _unpack(gathered(packed), axis, self.shape[axis])

    def __deepcopy__(self, memo: dict[int, Any]) -> Sharding:
        # A copy of a model is on the same ranks, so it is divided in the same way.
        return self


def sharding_of(tensor: Tensor) -> Sharding | None:
    """Return how a DTensor is divided among ranks; None for a plain tensor."""
    sharded: Any = tensor
    if not is_dtensor(tensor):
        return None
    return Sharding(sharded.device_mesh, tuple(sharded.placements), tuple(tensor.shape))


_shardings: dict[str, Sharding] = {}
"""Shardings by key: an argument of a custom operation can be a string, but not a `Sharding`."""


def register_sharding(sharding: Sharding) -> str:
    """Store a sharding, unless an equal one is stored, and return its key for `gather_mask`."""
    key = next((key for key, stored in _shardings.items() if stored == sharding), str(len(_shardings)))
    _shardings[key] = sharding
    return key


@torch.library.custom_op("masksmith::gather_mask", mutates_args=())
def gather_mask(part: Tensor, key: str) -> Tensor:
    """Return the whole mask from the parts of all ranks; to `torch.compile`, this is a single operation."""
    return _shardings[key].gather(part)


@gather_mask.register_fake
def _whole_mask_of(part: Tensor, key: str) -> Tensor:
    return part.new_empty(_shardings[key].shape)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _pack(mask: Tensor, axis: int) -> Tensor:
    """Pack a mask along an axis, eight entries a byte."""
    entries = mask.movedim(axis, -1).to(torch.uint8)
    padded = torch.nn.functional.pad(entries, (0, -entries.shape[-1] % 8))
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    bits = padded.reshape(*padded.shape[:-1], padded.shape[-1] // 8, 8) << places
    return bits.sum(-1, dtype=torch.uint8).movedim(-1, axis).contiguous()


def _unpack(packed: Tensor, axis: int, count: int) -> Tensor:
    """Unpack `count` entries along an axis."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed.movedim(axis, -1).unsqueeze(-1) >> places) & 1
    return bits.flatten(-2)[..., :count].bool().movedim(-1, axis).contiguous()
