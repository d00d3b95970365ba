"""Sharded weights (DTensor, of FSDP2 and tensor parallelism): gather one, and shard a mask as its weight is."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return type(tensor).__name__ == "DTensor" or hasattr(tensor, "placements")


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole tensor; of a DTensor all ranks must gather it together."""
    sharded: Any = tensor
    return sharded.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this rank holds."""
    sharded: Any = tensor
    return sharded.to_local() if is_sharded(tensor) else tensor


def as_sharded(mask: Tensor, weight: Tensor) -> Tensor:
    """Return a mask on its weight's device, sharded as its weight is; each rank has the whole mask, so none is sent."""
    on_device = mask if mask.device == weight.device else mask.to(weight.device)
    if not is_sharded(weight):
        return on_device
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = weight
    return distribute_tensor(on_device, sharded.device_mesh, sharded.placements, src_data_rank=None)
