"""Copy the values (weights or scores) and masks of layers to the shared memory; copies from a GPU are asynchronous."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .refresh_worker.shared_memory import SharedMemory

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Snapshots:
    """Copies values and masks of layers, and calls a function when the copies are complete."""

    def __init__(self, memory: SharedMemory) -> None:
        self._values = {
            name: torch.from_numpy(memory.values(name)).view(DTYPES[slot.dtype]).view(slot.shape)
            for name, slot in memory.slots.items()
        }
        self._previous = {name: torch.from_numpy(memory.previous(name)) for name in memory.slots}
        self._all_bytes = torch.from_numpy(memory.bytes)
        self._pinned = False
        self._end_of_copies: torch.cuda.Event | None = None
        self._callback: Callable[[], None] | None = None

    def take(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Start the copy of a layer's values and mask."""
        if values.is_cuda:
            self._pin()
        self._values[name].copy_(values, non_blocking=True)
        self._previous[name].copy_(mask, non_blocking=True)

    def mark_end(self) -> None:
        """Note that the copies of all layers have been started."""
        if self._pinned:
            self._end_of_copies = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._end_of_copies.record()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the copies are complete: now, or in a later call of `are_done` or `wait`."""
        self._callback = callback
        self.are_done()  # calls it if the copies are complete

    def are_done(self) -> bool:
        """Whether the copies are complete; does not wait for them.

        The first call that returns True, or `wait`, calls the callback of `when_done`.
        """
        if self._end_of_copies is not None and not self._end_of_copies.query():  # type: ignore[no-untyped-call]
            return False
        self._end_of_copies, callback, self._callback = None, self._callback, None
        if callback is not None:
            callback()
        return True

    def wait(self) -> None:
        """Block until the copies are complete; then call the callback of `when_done`, unless it was called already."""
        if self._end_of_copies is not None:
            self._end_of_copies.synchronize()
        self.are_done()  # calls the callback

    def _pin(self) -> None:
        # Copies from a GPU are asynchronous only if the memory is pinned.
        if not self._pinned:
            torch.cuda.cudart().cudaHostRegister(self._all_bytes.data_ptr(), self._all_bytes.numel(), 0)  # type: ignore[no-untyped-call]
            self._pinned = True
