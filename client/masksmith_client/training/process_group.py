"""Distributed training: rank 0 requests masks and broadcasts them, so that all ranks apply them at the same step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from masksmith_wire.masks import pack, packed_width, unpack

from .masked_layer import MaskedLayer
from .on_device import DeviceMemory
from .refresh_worker.messages import RefreshResponse
from .refresh_worker.shared_memory import SharedMemory

NO_RESPONSE = -1


class ProcessGroup:
    """The ranks that train together; without torch.distributed, this process alone."""

    def __init__(self, device: torch.device) -> None:
        self.joined = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.is_first = not self.joined or dist.get_rank() == 0
        self._device = device if self.joined and dist.get_backend() != "gloo" else torch.device("cpu")

    def share(
        self,
        poll: Callable[[], RefreshResponse | None],
        layers: list[MaskedLayer],
        memory: SharedMemory | DeviceMemory,
    ) -> RefreshResponse | None:
        """Poll on rank 0, and broadcast the response and the masks to all ranks.

        All ranks must call this at the same step. Without a response it costs one broadcast of a number.

        Args:
            poll: Returns the response, or None; called on rank 0 only.
            layers: The masked layers.
            memory: Where the masks are, on rank 0, and are written, on the others.
        """
        if not self.joined:
            return poll()
        response = poll() if self.is_first else None
        text = b"" if response is None else response.model_dump_json().encode()
        size = self._broadcast(torch.tensor([NO_RESPONSE if response is None else len(text)]))
        if int(size) == NO_RESPONSE:
            return None
        data = self._broadcast(_as_bytes(np.frombuffer(text, np.uint8)) if self.is_first else _empty(int(size)))
        response = RefreshResponse.model_validate_json(data.numpy().tobytes())
        for layer in layers:
            result = response.layers.get(layer.name)
            if result is not None and result.has_new_mask:
                self._share_mask(layer, memory)
        return response

    def _share_mask(self, layer: MaskedLayer, memory: SharedMemory | DeviceMemory) -> None:
        mask = memory.mask(layer.name)
        if isinstance(mask, torch.Tensor):
            mask.copy_(self._broadcast_on_device(mask.to(torch.uint8)))
            return
        size = math.prod(layer.shape[:-1]) * packed_width(layer.shape)
        bits = self._broadcast(_as_bytes(pack(mask).reshape(-1)) if self.is_first else _empty(size))
        if not self.is_first:
            packed = bits.numpy().reshape(*layer.shape[:-1], packed_width(layer.shape))
            mask[...] = unpack(packed, layer.shape)

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._broadcast_on_device(tensor).cpu()

    def _broadcast_on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        on_device = tensor.to(self._device)
        dist.broadcast(on_device, src=0)
        return on_device


def _as_bytes(data: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(data.copy())


def _empty(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8)
