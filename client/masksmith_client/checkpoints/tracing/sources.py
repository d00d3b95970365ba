"""The parameters that a tensor is a view or a copy of, and the parameters' dimensions along which it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = frozenset({"clone", "_to_copy", "index_select"})
"""Operations whose result has the dimensions of their first argument in a storage of its own."""

SCALINGS = frozenset({"mul", "div"})
"""Operations with a scale, such as a quantiser's, which leave a parameter's dimensions as they are."""


@dataclass(frozen=True, slots=True)
class Source:
    """A parameter whose entries a tensor holds.

    Attributes:
        parameter: Its name.
        dims: For each dimension of the tensor, the parameter's dimensions along which it runs; none where it has one
            entry or was added later.
    """

    parameter: str
    dims: tuple[frozenset[int], ...]


class Sources:
    """The sources of tensors: views are recognised by their storage and strides, copies are registered."""

    def __init__(self) -> None:
        self._bases: dict[int, tuple[torch.Tensor, tuple[Source, ...]]] = {}

    def add_parameter(self, name: str, tensor: torch.Tensor) -> None:
        """Register a parameter itself; if a storage has several names, the first is kept."""
        if not self.of(tensor):
            self.add(tensor, [Source(name, tuple(frozenset({dim}) for dim in range(tensor.ndim)))])

    def add(self, tensor: torch.Tensor, sources: Sequence[Source]) -> None:
        """Register a tensor that has a storage of its own; it is kept alive, so that no other gets the same storage."""
        self._bases[storage_of(tensor)] = tensor, tuple(sources)

    def of(self, tensor: torch.Tensor) -> tuple[Source, ...]:
        """Return the sources of a registered tensor or a view of one; none for any other."""
        base = self._bases.get(storage_of(tensor))
        if base is None:
            return ()
        dims = _view_dims(tensor, base[0])
        return tuple(
            Source(
                each.parameter, tuple(frozenset().union(*(each.dims[dim] for dim in base_dims)) for base_dims in dims)
            )
            for each in base[1]
        )


class CopyFollower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Registers copies of tensors with known sources while operations run."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources = sources

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and follow what it copies."""
        result = func(*args, **(kwargs or {}))
        self.follow(func, args, result)
        return result

    def follow(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        """Register the result of an operation if it has entries of parameters; return whether it has."""
        if not isinstance(result, torch.Tensor) or not any(map(self.sources.of, tensors_in(args))):
            return False
        if self.sources.of(result):
            return True
        sources = self._copied(func, args, result)
        if sources:
            self.sources.add(result, sources)
        return bool(sources)

    def _copied(self, func: Any, args: tuple[Any, ...], result: torch.Tensor) -> list[Source]:
        name = operation_name(func)
        if name in COPIES:
            return list(self.sources.of(args[0]))
        if name in _REARRANGED:
            return _REARRANGED[name](self.sources, args)
        tensors = list(tensors_in(args))
        if torch.Tag.pointwise in func.tags and (name in SCALINGS or len(tensors) == 1):
            alike = [self.sources.of(each) for each in tensors if each.shape == result.shape]
            return list(next(filter(None, alike), ()))
        return []


def storage_of(tensor: torch.Tensor) -> int:
    """Return the identity of a tensor's storage, which views share, on the meta device as well."""
    return int(tensor.untyped_storage()._cdata)


def operation_name(func: Any) -> str:
    """Return the name of an operation, without its overload."""
    return str(func._schema.name).rsplit("::", 1)[-1]


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Return the tensors among an operation's arguments."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            yield from tensors_in(value)


def _view_dims(view: torch.Tensor, base: torch.Tensor) -> list[frozenset[int]]:
    """Give, for each dimension of a view, the dimensions of its dense base that it runs along, from the strides."""
    if view.shape == base.shape and view.stride() == base.stride():
        return [frozenset({dim}) for dim in range(base.ndim)]
    lengths = list(zip(base.shape, base.stride(), strict=True))
    return [
        frozenset(
            dim
            for dim, (length, stride) in enumerate(lengths)
            if count > 1 and length > 1 and step > 0 and stride * length > step and stride < count * step
        )
        for count, step in zip(view.shape, view.stride(), strict=True)
    ]


def _indexed(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    """`tensor[:, indices]`: the dimensions of the indices replace the one that is indexed."""
    indices = [(dim, index) for dim, index in enumerate(args[1]) if index is not None]
    if len(indices) != 1 or indices[0][1].dtype in (torch.bool, torch.uint8):
        return []
    dim, index = indices[0]
    return [
        Source(each.parameter, (*each.dims[:dim], *[each.dims[dim]] * index.ndim, *each.dims[dim + 1 :]))
        for each in sources.of(args[0])
    ]


def _concatenated(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    parts = [sources.of(each) for each in args[0]]
    return [source for part in parts for source in part] if all(parts) else []


def _stacked(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    dim = (args[1] if len(args) > 1 else 0) % (args[0][0].ndim + 1)
    parts = [sources.of(each) for each in args[0]]
    return [
        Source(each.parameter, (*each.dims[:dim], frozenset[int](), *each.dims[dim:]))
        for part in parts
        for each in part
        if all(parts)
    ]


_REARRANGED: dict[str, Callable[[Sources, tuple[Any, ...]], list[Source]]] = {
    "index": _indexed,
    "cat": _concatenated,
    "stack": _stacked,
}
