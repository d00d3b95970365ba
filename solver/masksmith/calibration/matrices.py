"""Where the weights of layers are in memory, and tensors that are computed from them entry by entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .accumulator import LayerAccumulator
from .unfollowed import storage_id

Tensor = torch.Tensor
Entries = tuple[int, int, int, tuple[tuple[int, int], ...]]
"""Where the entries of a matrix are in a storage: offset, number of outputs, their stride, and the input dimensions.

Each input dimension is a pair of size and stride, the last dimension first; neighbouring dimensions that one size and
one stride can describe are merged.
"""


@dataclass(frozen=True)
class Matrix:
    """A layer's weight in a storage, or a tensor computed from it, as `[out, in, *kernel]`.

    Attributes:
        accumulator: The layer's accumulator.
        tensor_shape: Shape of the tensor.
        entries: Where its entries are in the storage.
        last: Offset of the last entry.
        is_contiguous: Whether the entries lie one after the other, in the order of the shape.
    """

    accumulator: LayerAccumulator
    tensor_shape: tuple[int, ...]
    entries: Entries
    last: int
    is_contiguous: bool

    def is_whole(self, operand: Tensor) -> bool:
        """Whether a view `[out, in, ..]` of the storage has exactly the entries of the matrix, in the same order."""
        return entries_of(operand) == self.entries

    def rearranged(self, view: Tensor, result: Tensor) -> Tensor | None:
        """Return the result of an entry-by-entry operation on `view`, rearranged to `[out, in, *kernel]`.

        Returns:
            None if the result has another shape than `view`, or `view` is not the whole matrix: as it is, transposed,
            or, if all is contiguous, in another shape.
        """
        if view.shape != result.shape:
            return None
        if self.is_whole(view):
            return result
        if view.ndim == 2 and self.is_whole(view.mT):
            return result.mT
        begins_here = view.storage_offset() == self.entries[0] and view.numel() == torch.Size(self.tensor_shape).numel()
        if begins_here and self.is_contiguous and view.is_contiguous() and result.is_contiguous():
            return result.view(self.tensor_shape)
        return None


class Matrices:
    """The matrices in each storage, by the identity of the storage, which all views share."""

    def __init__(self) -> None:
        self._by_storage: dict[int, list[Matrix]] = {}
        # While a weak reference exists, no new storage gets the same identity.
        self._storages: list[StorageWeakRef] = []

    def add(self, accumulator: LayerAccumulator, weight: Tensor) -> None:
        """Add a tensor `[out, in, *kernel]`, unless it has no values or is known already."""
        if weight.is_meta or not _has_storage(weight):
            return
        matrix = Matrix(accumulator, tuple(weight.shape), entries_of(weight), _last(weight), weight.is_contiguous())
        key = _storage_id(weight)
        if key not in self._by_storage:
            self._storages.append(StorageWeakRef(weight.untyped_storage()))  # type: ignore[no-untyped-call]
        in_storage = self._by_storage.setdefault(key, [])
        if matrix not in in_storage:
            in_storage.append(matrix)

    def of(self, operand: Tensor) -> list[Matrix]:
        """Return the matrices that a view of their storage overlaps."""
        if not _has_storage(operand):
            return []
        in_storage = self._by_storage.get(_storage_id(operand), ())
        return [
            each for each in in_storage if operand.storage_offset() <= each.last and _last(operand) >= each.entries[0]
        ]

    def follow(self, arguments: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Add the results of an operation that computes each entry from the same entry of its arguments."""
        matrices = [(argument, matrix) for argument in arguments for matrix in self.of(argument)]
        sources = {_storage_id(argument) for argument, _ in matrices}
        for result in results if matrices else ():
            if not _has_storage(result) or _storage_id(result) in sources:
                continue
            # If this storage held other matrices before, the operation has overwritten them.
            self._by_storage.pop(_storage_id(result), None)
            for argument, matrix in matrices:
                rearranged = matrix.rearranged(argument, result)
                if rearranged is not None:
                    self.add(matrix.accumulator, rearranged)


def entries_of(tensor: Tensor) -> Entries:
    """Return where the entries of a tensor `[out, in, *kernel]` are in its storage; equal for equal entries."""
    merged: list[tuple[int, int]] = []
    for size, stride in reversed([*zip(tensor.shape, tensor.stride(), strict=True)][1:]):
        if merged and stride == merged[-1][0] * merged[-1][1]:
            merged[-1] = (size * merged[-1][0], merged[-1][1])
        elif size > 1:
            merged.append((size, stride))
    outputs = tensor.shape[0] if tensor.ndim else 1
    return int(tensor.storage_offset()), outputs, tensor.stride(0) if outputs > 1 else 0, tuple(merged)


def tensors_in(values: Sequence[object]) -> Iterator[Tensor]:
    """Yield the tensors among an operation's arguments or results."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def _has_storage(tensor: Tensor) -> bool:
    return storage_id(tensor) is not None


def _storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _last(tensor: Tensor) -> int:
    """Return the offset of a tensor's last entry in its storage."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return int(tensor.storage_offset()) + sum((size - 1) * stride for size, stride in steps)
