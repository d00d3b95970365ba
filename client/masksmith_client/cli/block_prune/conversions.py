"""Follows the tensors that `from_pretrained` fuses into one parameter, to find where each of them is in it.

Conversions run on the meta device, so that no values are computed. Stacking, concatenation and permutation of
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
    """A tensor that is a part of another one.

    Attributes:
        name: Its name.
        shape: Its shape.
        start: Index in the other tensor of its first entry.
        dims: Dimension of the other tensor along which each of its own dimensions runs.
    """

    name: str
    shape: tuple[int, ...]
    start: tuple[int, ...]
    dims: tuple[int, ...]

    @classmethod
    def whole(cls, name: str, shape: Sequence[int]) -> Piece:
        """Return a tensor as a part of itself."""
        return cls(name, tuple(shape), (0,) * len(shape), tuple(range(len(shape))))

    def permuted(self, dims: Sequence[int]) -> Piece:
        """Return it where dimension `dims[i]` of the other tensor has become dimension `i`."""
        start = tuple(self.start[dim] for dim in dims)
        return Piece(self.name, self.shape, start, tuple(dims.index(dim) for dim in self.dims))

    def moved(self, dim: int, steps: int) -> Piece:
        """Return it after entries were put before it along a dimension."""
        start = (*self.start[:dim], self.start[dim] + steps, *self.start[dim + 1 :])
        return Piece(self.name, self.shape, start, self.dims)

    def stacked(self, dim: int, number: int) -> Piece:
        """Return it where the other tensor has become number `number` along a new dimension."""
        start = (*self.start[:dim], number, *self.start[dim:])
        return Piece(self.name, self.shape, start, tuple(each + (each >= dim) for each in self.dims))

    def place(self, shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Return strides and place of the first entry, where the other tensor is contiguous and has this shape."""
        strides = torch.empty(tuple(shape), device="meta").stride()
        offset = sum(index * stride for index, stride in zip(self.start, strides, strict=True))
        return tuple(strides[dim] for dim in self.dims), offset


class PieceFollower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows tensors through the operations that run in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pieces: dict[int, list[Piece]] = {}
        self._tensors: list[torch.Tensor] = []

    def add(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """Return a new tensor on the meta device, which is followed."""
        tensor = torch.empty(tuple(shape), device="meta")
        self._keep(tensor, [Piece.whole(name, shape)])
        return tensor

    def pieces(self, tensor: torch.Tensor) -> list[Piece]:
        """Return the parts of a tensor that are known."""
        return self._pieces.get(id(tensor), [])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and note where it moves what is followed."""
        result = func(*args, **(kwargs or {}))
        moves = _MOVES.get(operation_name(func))
        if moves is not None and isinstance(result, torch.Tensor):
            self._keep(result, moves(self.pieces, *args, **(kwargs or {})))
        return result

    def _keep(self, tensor: torch.Tensor, pieces: list[Piece]) -> None:
        """Note the parts of a tensor, which is kept alive so that no other one gets its identity."""
        self._tensors.append(tensor)
        self._pieces[id(tensor)] = pieces


PiecesOf = Callable[[torch.Tensor], list[Piece]]


def _stack(pieces_of: PiecesOf, tensors: Sequence[torch.Tensor], dim: int = 0) -> list[Piece]:
    dim %= tensors[0].ndim + 1
    return [piece.stacked(dim, number) for number, each in enumerate(tensors) for piece in pieces_of(each)]


def _cat(pieces_of: PiecesOf, tensors: Sequence[torch.Tensor], dim: int = 0) -> list[Piece]:
    pieces, steps = list[Piece](), 0
    for each in tensors:
        pieces += [piece.moved(dim % each.ndim, steps) for piece in pieces_of(each)]
        steps += each.shape[dim]
    return pieces


def _permute(pieces_of: PiecesOf, tensor: torch.Tensor, dims: Sequence[int]) -> list[Piece]:
    return [piece.permuted([dim % tensor.ndim for dim in dims]) for piece in pieces_of(tensor)]


def _transpose(pieces_of: PiecesOf, tensor: torch.Tensor, first: int = 0, second: int = 1) -> list[Piece]:
    dims = list(range(tensor.ndim))
    dims[first], dims[second] = dims[second], dims[first]
    return _permute(pieces_of, tensor, dims)


def _copy(pieces_of: PiecesOf, tensor: torch.Tensor, **options: Any) -> list[Piece]:
    return pieces_of(tensor)


_MOVES: Mapping[str, Callable[..., list[Piece]]] = {
    "stack": _stack, "cat": _cat, "permute": _permute, "transpose": _transpose, "t": _transpose, "clone": _copy,
    "detach": _copy, "alias": _copy,
}  # fmt: skip
