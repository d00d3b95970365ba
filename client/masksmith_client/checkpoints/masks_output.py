"""Writes the masks file of a pruned checkpoint, a mask at a time, and reads masks that it has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masksmith_wire.masks import MaskInfo, file_header, packed_bytes, packed_width

from .choice import Choice, ChosenTensor
from .partial_file import PartialFile


class MasksOutput:
    """A masks file that is being written; the names of its masks, and their order, are fixed at the start."""

    def __init__(self, target: Path, names: list[str], choice: Choice) -> None:
        tensors = {name: choice.tensors[name] for name in names}
        self._header = file_header({name: _info(tensor) for name, tensor in tensors.items()})
        self._shapes: Mapping[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in tensors.items()}
        sizes = [packed_bytes(shape) for shape in self._shapes.values()]
        # The last sum is the end of the file, not the start of a mask.
        self._starts = dict(zip(names, accumulate(sizes, initial=len(self._header)), strict=False))
        self.total_bytes = len(self._header) + sum(sizes)
        self.file = PartialFile(target)

    def begin(self) -> None:
        """Write the header, unless an earlier run has written it."""
        if self.file.size == 0:
            self.file.write(self._header)

    def write(self, packed_mask: npt.NDArray[np.uint8]) -> None:
        """Append a packed mask, the next in the order of the names."""
        self.file.write(np.ascontiguousarray(packed_mask).data.cast("B"))

    def has(self, name: str) -> bool:
        """Whether a mask has been written, by this run or an earlier one."""
        return self._starts[name] < self.file.size

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """Read a packed mask that has been written, `[*shape[:-1], packed width]`."""
        shape, start = self._shapes[name], self._starts[name]
        data = self.file.read(start, start + packed_bytes(shape))
        return np.frombuffer(data, np.uint8).reshape(*shape[:-1], packed_width(shape))


def _info(tensor: ChosenTensor) -> MaskInfo:
    assert tensor.pattern is not None
    return MaskInfo.of(tensor.shape, tensor.pattern, tensor.layout)
