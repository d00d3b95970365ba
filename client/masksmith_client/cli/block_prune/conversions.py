"""Follow the stored tensors that `from_pretrained` fuses into one parameter, to find where each is in the parameter.

Conversions run on the meta device, so that no values are computed. Copying, stacking, concatenation and permutation of
dimensions move every entry to one known place; after any other operation, the places are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from masksmith_client.checkpoints.tracing.sources import operation_name


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a stored tensor is in a larger tensor, the container.

    Attributes:
        name: Name of the stored tensor.
        shape: Shape of the stored tensor.
        start: Index in the container of the first entry of the stored tensor.
        dims: For each dimension of the stored tensor, the dimension of the container along which it runs.
    """

    name: str
    shape: tuple[int, ...]
    start: tuple[int, ...]
    dims: tuple[int, ...]

    @classmethod
    def whole(cls, name: str, shape: Sequence[int]) -> Piece:
        """Return the piece of a container that is the stored tensor itself."""
        return cls(name, tuple(shape), (0,) * len(shape), tuple(range(len(shape))))

    def permuted(self, dims: Sequence[int]) -> Piece:
        """Return the piece after dimension `dims[i]` of the container has become dimension `i`."""
        start = tuple(self.start[dim] for dim in dims)
        return Piece(self.name, self.shape, start, tuple(dims.index(dim) for dim in self.dims))

    def moved(self, dim: int, distance: int) -> Piece:
        """Return the piece after the container was put into a larger one, `distance` from its start along `dim`."""
        start = (*self.start[:dim], self.start[dim] + distance, *self.start[dim + 1 :])
        return Piece(self.name, self.shape, start, self.dims)

    def stacked(self, dim: int, number: int) -> Piece:
        """Return the piece after the container has become entry `number` along a new dimension `dim`."""
        start = (*self.start[:dim], number, *self.start[dim:])
        dims = tuple(axis if axis < dim else axis + 1 for axis in self.dims)
        return Piece(self.name, self.shape, start, dims)

    def strides_and_offset(self, shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Return strides and offset of the stored tensor, in entries, in a contiguous container of this shape."""
        strides = torch.empty(tuple(shape), device="meta").stride()
        offset = sum(index * stride for index, stride in zip(self.start, strides, strict=True))
        return tuple(strides[dim] for dim in self.dims), offset


class PieceFollower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the tensors that `add` returns through the operations that run while its context is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pieces: dict[int, list[Piece]] = {}
        self._kept_alive: list[torch.Tensor] = []

    def add(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """Return a new tensor on the meta device, and follow it."""
        tensor = torch.empty(tuple(shape), device="meta")
        self._record(tensor, [Piece.whole(name, shape)])
        return tensor

    def pieces(self, tensor: torch.Tensor) -> list[Piece]:
        """Return the pieces of a tensor; an empty list if the places of its pieces are unknown."""
        return self._pieces.get(id(tensor), [])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; if it is one of `_MOVES`, record where it moves the pieces of its arguments."""
        result = func(*args, **(kwargs or {}))
        moves = _MOVES.get(operation_name(func))
        if moves is not None and isinstance(result, torch.Tensor):
            self._record(result, moves(self.pieces, *args, **(kwargs or {})))
        return result

    def _record(self, tensor: torch.Tensor, pieces: list[Piece]) -> None:
        """Record the pieces of a tensor, which is kept alive so that no other tensor gets its `id`."""
        self._kept_alive.append(tensor)
        self._pieces[id(tensor)] = pieces


PiecesOf = Callable[[torch.Tensor], list[Piece]]


def _stack(pieces_of: PiecesOf, tensors: Sequence[torch.Tensor], dim: int = 0) -> list[Piece]:
    dim %= tensors[0].ndim + 1
    return [piece.stacked(dim, number) for number, tensor in enumerate(tensors) for piece in pieces_of(tensor)]


def _cat(pieces_of: PiecesOf, tensors: Sequence[torch.Tensor], dim: int = 0) -> list[Piece]:
    pieces, distance = list[Piece](), 0
    for tensor in tensors:
        pieces += [piece.moved(dim % tensor.ndim, distance) for piece in pieces_of(tensor)]
        distance += tensor.shape[dim]
    return pieces


def _permute(pieces_of: PiecesOf, tensor: torch.Tensor, dims: Sequence[int]) -> list[Piece]:
    return [piece.permuted([dim % tensor.ndim for dim in dims]) for piece in pieces_of(tensor)]


def _transpose(pieces_of: PiecesOf, tensor: torch.Tensor, first: int = 0, second: int = 1) -> list[Piece]:
    if tensor.ndim < 2:  # A transpose leaves vectors and scalars as they are.
        return pieces_of(tensor)
    dims = list(range(tensor.ndim))
    dims[first], dims[second] = dims[second], dims[first]
    return _permute(pieces_of, tensor, dims)


def _copy(pieces_of: PiecesOf, tensor: torch.Tensor, **options: Any) -> list[Piece]:
    return pieces_of(tensor)


_MOVES: Mapping[str, Callable[..., list[Piece]]] = {
    "stack": _stack, "cat": _cat, "permute": _permute, "transpose": _transpose, "t": _transpose, "clone": _copy,
    "detach": _copy, "alias": _copy,
}  # fmt: skip
"""For each operation, by its name: the function that returns the pieces of the result from the arguments."""
