"""Memory shared by the training loop and the refresh worker: values, previous masks, new masks.

It is an anonymous file (`memfd_create` where available), which the operating system removes when both processes
have closed it or ended.
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

from masksmith.layouts import ITEM_BYTES, Layout, default_axes

ALIGNMENT = 64
"""Alignment of each array, in bytes."""
VALUES, PREVIOUS, MASK = 0, 1, 2
"""Places of the arrays of a layer in its list of offsets."""
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LayerSlot:
    """Describes a layer in the shared memory.

    Attributes:
        name: Name of the layer.
        dtype: Dtype of its values, as a safetensors name.
        shape: Its shape.
        axes: Axes of its layout; None if it is one matrix `[out, in]` or a convolution, without fused parts.
        out_parts: Number of rows of each matrix that is fused along `out`; empty if nothing is fused.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: str | None = None
    out_parts: tuple[int, ...] = ()

    @property
    def layout(self) -> Layout:
        """How the layer is made of matrices."""
        if self.axes is None:
            return Layout(default_axes(self.shape))
        return Layout.parse(self.axes, rule="model", out_parts=self.out_parts)

    @property
    def entries(self) -> int:
        """Number of entries of the layer."""
        return math.prod(self.shape)

    @property
    def values_bytes(self) -> int:
        """Size of the layer's values in bytes."""
        return self.entries * ITEM_BYTES[self.dtype]


class SharedMemory:
    """The memory with values, previous masks and new masks of all layers.

    Args:
        slots: The layers.
        fd: File descriptor inherited from the process that created the memory; None creates the memory.

    Attributes:
        slots: The layers, by name.
        fd: File descriptor of the memory; closed when this object is deleted.
        bytes: View of the whole memory.
    """

    def __init__(self, slots: Iterable[LayerSlot], fd: int | None = None) -> None:
        self.slots = {slot.name: slot for slot in slots}
        offset, self._offsets = 0, {}
        for slot in self.slots.values():
            offsets = []
            for size in (slot.values_bytes, slot.entries, slot.entries):
                offsets.append(offset)
                offset += -(-size // ALIGNMENT) * ALIGNMENT
            self._offsets[slot.name] = offsets
        self.fd = _create_file(offset) if fd is None else fd
        weakref.finalize(self, os.close, self.fd)
        self._map = mmap.mmap(self.fd, offset)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)

    def values(self, name: str) -> Bytes:
        """Return a view of a layer's weights or scores, as bytes."""
        return self._array(name, VALUES, self.slots[name].values_bytes)

    def previous(self, name: str) -> Bools:
        """Return a view of the mask that a layer had when its values were copied."""
        return self._bools(name, PREVIOUS)

    def mask(self, name: str) -> Bools:
        """Return a view of a layer's new mask."""
        return self._bools(name, MASK)

    def _bools(self, name: str, place: int) -> Bools:
        slot = self.slots[name]
        return self._array(name, place, slot.entries).view(np.bool_).reshape(slot.shape)

    def _array(self, name: str, place: int, size: int) -> Bytes:
        start = self._offsets[name][place]
        return self.bytes[start : start + size]


def _create_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("masksmith")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
