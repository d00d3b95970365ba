"""Copies of weights into the shared memory; from a GPU they travel while training goes on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .refresh_worker.shared_memory import Memory

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Snapshots:
    """Takes copies of weights and masks, and calls back once they have arrived."""

    def __init__(self, memory: Memory) -> None:
        self._values = {
            name: torch.from_numpy(memory.values(name)).view(DTYPES[slot.dtype]).view(slot.shape)
            for name, slot in memory.slots.items()
        }
        self._previous = {name: torch.from_numpy(memory.previous(name)) for name in memory.slots}
        self._whole = torch.from_numpy(memory.bytes)
        self._pinned = False
        self._copied: torch.cuda.Event | None = None
        self._then: Callable[[], None] | None = None

    def take(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Copy a layer's values and mask."""
        if values.is_cuda:
            self._pin()
        self._values[name].copy_(values, non_blocking=True)
        self._previous[name].copy_(mask, non_blocking=True)

    def finish(self) -> None:
        """Note that all layers have been taken."""
        if self._pinned:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def when_done(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as the copies are known to have arrived."""
        self._then = then
        self.are_done()

    def are_done(self) -> bool:
        """Whether the copies have arrived; never waits."""
        if self._copied is not None and not self._copied.query():  # type: ignore[no-untyped-call]
            return False
        self._copied, then, self._then = None, self._then, None
        if then is not None:
            then()
        return True

    def wait(self) -> None:
        """Wait until they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        self.are_done()

    def _pin(self) -> None:
        # Copies from a GPU are asynchronous only if the memory is pinned.
        if not self._pinned:
            torch.cuda.cudart().cudaHostRegister(self._whole.data_ptr(), self._whole.numel(), 0)  # type: ignore[no-untyped-call]
            self._pinned = True
