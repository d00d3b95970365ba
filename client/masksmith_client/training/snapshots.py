"""Copy the values (weights or scores) and masks of layers to the shared memory; copies from a GPU are asynchronous."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .refresh_worker.shared_memory import SharedMemory

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Snapshots:
    """Copies values and masks of layers, and calls a function when the copies are complete.

    Copies from CUDA devices are asynchronous; all others are complete when `take` returns.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._values = {
            name: torch.from_numpy(memory.values(name)).view(DTYPES[slot.dtype]).view(slot.shape)
            for name, slot in memory.slots.items()
        }
        self._previous = {name: torch.from_numpy(memory.previous(name)) for name in memory.slots}
        self._all_bytes = torch.from_numpy(memory.bytes)
        self._is_pinned = False
        # GPUs from which copies were started, until `mark_end`; then one event per GPU, at the end of its copies.
        self._devices: set[torch.device] = set()
        self._ends_of_copies: list[torch.cuda.Event] = []
        self._callback: Callable[[], None] | None = None

    def take(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Start the copy of a layer's values and mask."""
        for tensor in (values, mask):
            if tensor.is_cuda:
                self._pin()
                self._devices.add(tensor.device)
        # From other accelerators, such as MPS, such a copy would not be waited for.
        self._values[name].copy_(values, non_blocking=values.is_cuda)
        self._previous[name].copy_(mask, non_blocking=mask.is_cuda)

    def copied_to(self, memory: SharedMemory) -> Snapshots:
        """Return snapshots in another memory of the same layers, with the values and masks that were taken so far."""
        self.mark_end()
        self.wait()
        other = Snapshots(memory)
        for name, values in self._values.items():
            other.take(name, values, self._previous[name])
        return other

    def mark_end(self) -> None:
        """Note that the copies of all layers have been started."""
        while self._devices:
            # Each GPU has a stream of its own, on which its copies were started.
            end = torch.cuda.Event()  # type: ignore[no-untyped-call]
            end.record(torch.cuda.current_stream(self._devices.pop()))
            self._ends_of_copies.append(end)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the copies are complete: now, or in a later call of `are_done` or `wait`."""
        self._callback = callback
        self.are_done()  # calls it if the copies are complete

    def are_done(self) -> bool:
        """Whether the copies are complete; does not wait for them.

        The first call that returns True, or `wait`, calls the callback of `when_done`.
        """
        if not all(end.query() for end in self._ends_of_copies):  # type: ignore[no-untyped-call]
            return False
        self._ends_of_copies.clear()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
        return True

    def wait(self) -> None:
        """Block until the copies are complete; then call the callback of `when_done`, unless it was called already."""
        for end in self._ends_of_copies:
            end.synchronize()
        self.are_done()  # calls the callback

    def _pin(self) -> None:
        # Copies from a GPU are asynchronous only if the memory is pinned.
        if not self._is_pinned:
            address = self._all_bytes.data_ptr()
            torch.cuda.cudart().cudaHostRegister(address, self._all_bytes.numel(), 0)  # type: ignore[no-untyped-call]
            self._is_pinned = True
            # Called before the memory is unmapped, since this object refers to the memory until then.
            unpin = weakref.finalize(self, _unpin, address, self._ends_of_copies)
            unpin.atexit = False  # At the exit of the process, CUDA may have ended already.


def _unpin(address: int, ends_of_copies: Iterable[torch.cuda.Event]) -> None:
    """Wait for running copies, and unpin the memory.

    Otherwise the driver would take other memory at the same address for the pinned one, and copy to the wrong place.
    """
    for end in ends_of_copies:
        end.synchronize()
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
