"""Several training processes: the first asks, all get the same answer at the same step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from masksmith_wire.masks import pack, packed_width, unpack

from .masked_layer import MaskedLayer
from .refresh_worker.messages import Answer
from .refresh_worker.shared_memory import Memory

NOTHING = -1


class World:
    """The processes that train together; one alone without torch.distributed."""

    def __init__(self, device: torch.device) -> None:
        self.joined = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.asks = not self.joined or dist.get_rank() == 0
        self._device = device if self.joined and dist.get_backend() != "gloo" else torch.device("cpu")

    def share(self, poll: Callable[[], Answer | None], layers: list[MaskedLayer], memory: Memory) -> Answer | None:
        """Give every process what the first one's `poll` gives, and its masks in the memory.

        All processes must call this at the same step. While there is no answer, that costs one small broadcast.
        """
        if not self.joined:
            return poll()
        answer = poll() if self.asks else None
        text = b"" if answer is None else answer.model_dump_json().encode()
        size = self._broadcast(torch.tensor([NOTHING if answer is None else len(text)]))
        if int(size) == NOTHING:
            return None
        told = self._broadcast(_as_bytes(np.frombuffer(text, np.uint8)) if self.asks else _empty(int(size)))
        answer = Answer.model_validate_json(told.numpy().tobytes())
        for layer in layers:
            found = answer.layers.get(layer.name)
            if found is not None and found.error is None and not found.unchanged:
                self._share_mask(layer, memory)
        return answer

    def _share_mask(self, layer: MaskedLayer, memory: Memory) -> None:
        mask = memory.found(layer.name)
        size = math.prod(layer.shape[:-1]) * packed_width(layer.shape)
        bits = self._broadcast(_as_bytes(pack(mask).reshape(-1)) if self.asks else _empty(size))
        if not self.asks:
            packed = bits.numpy().reshape(*layer.shape[:-1], packed_width(layer.shape))
            mask[...] = unpack(packed, layer.shape)

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        there = tensor.to(self._device)
        dist.broadcast(there, src=0)
        return there.cpu()


def _as_bytes(data: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(data.copy())


def _empty(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8)
