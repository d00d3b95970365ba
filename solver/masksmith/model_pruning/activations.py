"""Activations: for each batch, the tensors that a block returns or that the first block gets, in memory or in files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .calls import Tensors
from .tensor_files import read_tensors, write_tensors


class Activations(Protocol):
    """The tensors that one block returned, or those that the first block gets, by batch."""

    def read(self, batch: int) -> Tensors:
        """Return the tensors of a batch, in the order in which they were written."""

    def write(self, batch: int, tensors: Tensors) -> None:
        """Store the tensors of a batch; called for batch 0, 1, 2 and so on."""


class ActivationsInMemory:
    """Activations in memory."""

    def __init__(self) -> None:
        self._batches: list[Tensors] = []

    def read(self, batch: int) -> Tensors:
        """Return the tensors of a batch."""
        return self._batches[batch]

    def write(self, batch: int, tensors: Tensors) -> None:
        """Store copies of the tensors of the next batch: a block may return the same tensor in each batch."""
        assert batch == len(self._batches)
        self._batches.append([tensor.clone() for tensor in tensors])


class ActivationsOnDisk:
    """Activations in a folder, one file for each batch; a file has its final name only when it is complete.

    Args:
        folder: The folder; created by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, batch: int) -> Tensors:
        """Read the tensors of a batch."""
        tensors, _ = read_tensors(self._path(batch))
        return [tensors[str(number)] for number in range(len(tensors))]

    def write(self, batch: int, tensors: Tensors) -> None:
        """Write the tensors of a batch."""
        write_tensors(self._path(batch), {str(number): tensor for number, tensor in enumerate(tensors)})

    def _path(self, batch: int) -> Path:
        return self._folder / f"{batch:05}.safetensors"
