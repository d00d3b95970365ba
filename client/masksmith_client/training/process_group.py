"""Distributed training: ranks share gradients and masks, so that all apply the same masks at the same step."""

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
    """The ranks that train together; without torch.distributed, this process alone.

    Args:
        device: The device of the weights.

    Attributes:
        is_distributed: Whether there are several ranks.
        world_size: The number of ranks.
        rank: The number of this rank.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_distributed, self.world_size, self.rank = _current_ranks()
        self._response: RefreshResponse | None = None
        self.use(device)

    def follow(self) -> bool:
        """Look for a process group that was initialized or destroyed after the last look; return whether one was.

        A response that other ranks have not got yet is ignored then. The caller must call `use` again.
        """
        ranks = _current_ranks()
        has_changed = ranks != (self.is_distributed, self.world_size, self.rank)
        if has_changed:
            (self.is_distributed, self.world_size, self.rank), self._response = ranks, None
        return has_changed

    def use(self, device: torch.device) -> None:
        """Communicate tensors on this device, that of the weights now, unless the backend needs the CPU."""
        self._device = device if self.is_distributed and dist.get_backend() != "gloo" else torch.device("cpu")

    def collect(self, poll: Callable[[], RefreshResponse | None]) -> list[RefreshResponse] | None:
        """Return the responses of all ranks, by rank, once every rank has its response; until then, return None.

        All ranks must call this at the same step. While it returns None, it costs one all-reduce of a number.

        Args:
            poll: Returns this rank's response, or None if it has not arrived.
        """
        self._response = poll() if self._response is None else self._response
        if not self._all(self._response is not None):
            return None
        response, self._response = self._response, None
        assert response is not None
        if not self.is_distributed:
            return [response]
        texts = self._gather(response.model_dump_json().encode())
        return [RefreshResponse.model_validate_json(text) for text in texts]

    def sum_gradient(self, layer: MaskedLayer) -> None:
        """Replace the gradient that each rank recorded for a layer by the sum over all ranks.

        A rank records the gradient of its part of the batch. All ranks must call this at the same step. If the sum
        is 0, the gradient of a rank that has recorded none stays None, as if no rank had recorded one.
        """
        masking = layer.masking
        own_gradient = None if masking.gradient is None else gathered(masking.gradient)
        masking.gradient = own_gradient
        if not self.is_distributed:
            return
        dtype = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
        if own_gradient is None:
            addend = torch.zeros(layer.shape, dtype=dtype, device=masking.mask.device)
        else:
            # Ranks add their entries in the order of memory; gradients of `channels_last` weights have another order.
            addend = own_gradient.to(dtype).contiguous()
        total = addend.to(self._device, copy=True)
        dist.all_reduce(total)
        if own_gradient is not None or bool(total.any()):
            masking.gradient = total.to(addend.device)

    @torch.no_grad()
    def share_masks(self, layers: Sequence[MaskedLayer]) -> None:
        """Give all ranks the masks of rank 0, and whether each layer is dense; all ranks must call this together.

        Masks that are divided among the ranks are left as they are.
        """
        if not self.is_distributed:
            return
        maskings = [layer.masking for layer in layers if layer.masking.sharding is None]
        dense = self._broadcast(torch.tensor([masking.dense for masking in maskings], dtype=torch.uint8), 0)
        for masking, is_dense in zip(maskings, dense.tolist(), strict=True):
            mask = self._broadcast_bits(0, masking.mask.cpu() if self.rank == 0 else None, masking.shape)
            masking.mask.copy_(mask)
            masking.dense = bool(is_dense)

    def gather_mask(
        self, shares: Sequence[Share], mask: torch.Tensor | None, shape: tuple[int, ...], *, packed: bool
    ) -> torch.Tensor:
        """Return a layer's whole mask: the masks of its shares, one below the other.

        Only for several ranks (`is_distributed`). All of them must call this for the same layers in the same order.

        Args:
            shares: The layer's shares.
            mask: The mask of this rank's share; None if this rank has no share.
            shape: The layer's shape.
            packed: Whether masks are sent as bits; then the result is in host memory, as they are. Otherwise a mask is
                sent as a byte an entry, and the result is on the device that communicates.
        """
        broadcast = self._broadcast_bits if packed else self._broadcast_bytes
        return torch.cat(
            [broadcast(share.rank, mask if share.rank == self.rank else None, share.shape(shape)) for share in shares]
        )

    def _broadcast_bits(self, source: int, mask: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the mask of rank `source`, which passes it as `mask`; the other ranks pass None."""
        packed_shape = (*shape[:-1], packed_width(shape))
        bits = torch.empty(math.prod(packed_shape), dtype=torch.uint8)
        if mask is not None:
            bits.copy_(torch.from_numpy(pack(mask.numpy())).reshape(-1))
        bits = self._broadcast(bits, source).cpu()
        return torch.from_numpy(unpack(bits.numpy().reshape(packed_shape), shape)) if mask is None else mask

    def _broadcast_bytes(self, source: int, mask: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
        entries = torch.empty(shape, dtype=torch.uint8, device=self._device) if mask is None else mask.to(torch.uint8)
        return self._broadcast(entries, source).bool()

    def _broadcast(self, tensor: torch.Tensor, source: int) -> torch.Tensor:
        on_device = tensor.to(self._device)
        dist.broadcast(on_device, src=source)
        return on_device

    def _all(self, value: bool) -> bool:
        """Whether a value is true on all ranks."""
        if not self.is_distributed:
            return value
        flag = torch.tensor([value], dtype=torch.int64, device=self._device)
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag.item())

    def _gather(self, text: bytes) -> list[bytes]:
        """Return the texts of all ranks, by rank."""
        sizes = [int(size) for size in self._all_gather(torch.tensor([len(text)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return [data[:size].numpy().tobytes() for data, size in zip(self._all_gather(padded), sizes, strict=True)]

    def _all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        on_device = tensor.to(self._device)
        tensors = [torch.empty_like(on_device) for _ in range(self.world_size)]
        dist.all_gather(tensors, on_device)
        return [received.cpu() for received in tensors]


def _current_ranks() -> tuple[bool, int, int]:
    """Return whether there are several ranks now, their number, and the number of this rank."""
    is_distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return (True, dist.get_world_size(), dist.get_rank()) if is_distributed else (False, 1, 0)
