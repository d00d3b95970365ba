"""Weights that are sharded over processes (`DTensor`, as FSDP2 makes them): gather one, and cut a mask to its shard."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from torch.distributed.tensor import DTensor, Replicate
except ImportError:  # torch without torch.distributed has no sharded weights
    DTensor = None  # type: ignore[assignment,misc]


def is_sharded(weight: Tensor) -> bool:
    """Whether the weight is a `DTensor`, of which each process may hold only a part."""
    return DTensor is not None and isinstance(weight, DTensor)


def whole(weight: Tensor) -> Tensor:
    """Return the whole tensor; for a sharded one all processes must call this together."""
    return weight.full_tensor() if is_sharded(weight) else weight  # type: ignore[attr-defined]


def local(weight: Tensor) -> Tensor:
    """Return the part of the tensor that this process holds, sharing its memory."""
    return weight.to_local() if is_sharded(weight) else weight  # type: ignore[attr-defined]


def like(mask: Tensor, weight: Tensor) -> Tensor:
    """Return a mask, which every process holds whole, distributed as the weight is; nothing is sent."""
    if not is_sharded(weight) or is_sharded(mask):
        return mask
    mesh, placements = weight.device_mesh, weight.placements  # type: ignore[attr-defined]
    replicated = DTensor.from_local(mask, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(mesh, placements)


@torch.no_grad()
def zero_outside(weight: Tensor, mask: Tensor) -> None:
    """Write zeros into the entries of the weight that the mask prunes; sharded weights in their own part."""
    local(weight).mul_(local(like(mask, weight)))
