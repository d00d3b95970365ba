"""Distributed training: ranks request masks and share them, so that all ranks apply the same ones at the same step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from masksmith_wire.masks import pack, packed_width, unpack

from .masked_layer import MaskedLayer
from .refresh_worker.messages import RefreshResponse
from .sharding import gathered
from .shares import Share


class ProcessGroup:
    """The ranks that train together; without torch.distributed, this process alone."""

    def __init__(self, device: torch.device) -> None:
        self.joined = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if self.joined else (1, 0)
        self._response: RefreshResponse | None = None
        self._device = device if self.joined and dist.get_backend() != "gloo" else torch.device("cpu")

    def collect(self, poll: Callable[[], RefreshResponse | None]) -> list[RefreshResponse] | None:
        """Return the responses of all ranks, by rank, as soon as each has its own; else None.

        All ranks must call this at the same step. Until then it costs one all-reduce of a number.

        Args:
            poll: Returns this rank's response, or None.
        """
        self._response = poll() if self._response is None else self._response
        if not self._all(self._response is not None):
            return None
        response, self._response = self._response, None
        assert response is not None
        if not self.joined:
            return [response]
        texts = self._gather(response.model_dump_json().encode())
        return [RefreshResponse.model_validate_json(text) for text in texts]

    def sum_gradient(self, layer: MaskedLayer) -> None:
        """Add up the gradients that the ranks recorded for a layer, each for its part of the batch.

        All ranks must call this at the same step. A layer that no rank has a gradient of still has none afterwards.
        """
        masking = layer.masking
        own = masking.gradient = None if masking.gradient is None else gathered(masking.gradient)
        if not self.joined:
            return
        dtype = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
        total = torch.zeros(layer.shape, dtype=dtype, device=masking.mask.device) if own is None else own.to(dtype)
        on_device = total.to(self._device, copy=True)
        dist.all_reduce(on_device)
        if own is not None or bool(on_device.any()):
            masking.gradient = on_device.to(total.device)

    def share_mask(
        self, shares: Sequence[Share], own: torch.Tensor | None, shape: tuple[int, ...], *, packed: bool
    ) -> torch.Tensor:
        """Return a layer's whole mask; all ranks must call this for the same layers in the same order.

        Args:
            shares: The layer's shares.
            own: The mask of this rank's share, if it has one.
            shape: The layer's shape.
            packed: Whether masks travel as bits; otherwise they stay on the device, a byte an entry.
        """
        share_rows = self._share_bits if packed else self._share_bytes
        return torch.cat(
            [share_rows(one.rank, own if one.rank == self.rank else None, one.shape(shape)) for one in shares]
        )

    def _share_bits(self, source: int, own: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
        packed = (*shape[:-1], packed_width(shape))
        bits = torch.empty(math.prod(packed), dtype=torch.uint8)
        if own is not None:
            bits.copy_(torch.from_numpy(pack(own.numpy())).reshape(-1))
        bits = self._broadcast(bits, source).cpu()
        return torch.from_numpy(unpack(bits.numpy().reshape(packed), shape)) if own is None else own

    def _share_bytes(self, source: int, own: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
        mask = torch.empty(shape, dtype=torch.uint8, device=self._device) if own is None else own.to(torch.uint8)
        return self._broadcast(mask, source).bool()

    def _broadcast(self, tensor: torch.Tensor, source: int) -> torch.Tensor:
        on_device = tensor.to(self._device)
        dist.broadcast(on_device, src=source)
        return on_device

    def _all(self, value: bool) -> bool:
        if not self.joined:
            return value
        flag = torch.tensor([value], dtype=torch.int64, device=self._device)
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag.item())

    def _gather(self, text: bytes) -> list[bytes]:
        """Return the texts of all ranks."""
        sizes = [int(size) for size in self._all_gather(torch.tensor([len(text)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return [data[:size].numpy().tobytes() for data, size in zip(self._all_gather(padded), sizes, strict=True)]

    def _all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        on_device = tensor.to(self._device)
        gathered = [torch.empty_like(on_device) for _ in range(self.world)]
        dist.all_gather(gathered, on_device)
        return [each.cpu() for each in gathered]
