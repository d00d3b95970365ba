"""Memory shared by the training loop and the refresh worker: values, previous masks, new masks.

It is a file without a name (`memfd_create` where there is one), so nothing has to be cleaned up, whichever ends first.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith.layouts import ITEM_BYTES

ALIGNMENT = 64
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Slot:
    """A layer's place: `dtype` is that of the values, as safetensors names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def entries(self) -> int:
        """Entries of the layer."""
        return math.prod(self.shape)

    @property
    def values_bytes(self) -> int:
        """Bytes of its values."""
        return self.entries * ITEM_BYTES[self.dtype]


class Memory:
    """Values, previous masks and new masks of all layers.

    Args:
        slots: The layers.
        fd: The file of the process that shares it; a new one unless given.
    """

    def __init__(self, slots: Iterable[Slot], fd: int | None = None) -> None:
        self.slots = {slot.name: slot for slot in slots}
        offset, self._places = 0, {}
        for slot in self.slots.values():
            places = []
            for size in (slot.values_bytes, slot.entries, slot.entries):
                places.append(offset)
                offset += -(-size // ALIGNMENT) * ALIGNMENT
            self._places[slot.name] = places
        self.fd = _file(offset) if fd is None else fd
        weakref.finalize(self, os.close, self.fd)
        self._map = mmap.mmap(self.fd, offset)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)

    def values(self, name: str) -> Bytes:
        """Give the bytes of a layer's weights or scores."""
        return self._part(name, 0, self.slots[name].values_bytes)

    def previous(self, name: str) -> Bools:
        """Give the mask that a layer had at the request."""
        return self._bools(name, 1)

    def mask(self, name: str) -> Bools:
        """Give the new mask."""
        return self._bools(name, 2)

    def _bools(self, name: str, which: int) -> Bools:
        slot = self.slots[name]
        return self._part(name, which, slot.entries).view(np.bool_).reshape(slot.shape)

    def _part(self, name: str, which: int, size: int) -> Bytes:
        start = self._places[name][which]
        return self.bytes[start : start + size]


def _file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("masksmith")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
