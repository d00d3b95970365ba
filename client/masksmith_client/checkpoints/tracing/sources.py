"""The parameters whose entries a tensor holds, as a view or a copy, and how its dimensions correspond to theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = frozenset({"clone", "_to_copy", "index_select"})
"""Operations whose result has the dimensions of their first argument in a storage of its own."""

SCALINGS = frozenset({"mul", "div"})
"""Operations of two tensors that may multiply a parameter by a scale, such as that of a quantiser."""


@dataclass(frozen=True, slots=True)
class Source:
    """A parameter whose entries a tensor holds.

    Attributes:
        parameter: The parameter's name.
        dims: For each dimension of the tensor, the dimensions of the parameter that it corresponds to. The set is empty
            for a dimension that the parameter does not have, and may be empty for a dimension of length 1.
    """

    parameter: str
    dims: tuple[frozenset[int], ...]


class Sources:
    """The sources of tensors: views are recognised by their storage and strides, copies are registered."""

    def __init__(self) -> None:
        self._bases: dict[int, tuple[torch.Tensor, tuple[Source, ...]]] = {}

    def add_parameter(self, name: str, tensor: torch.Tensor) -> None:
        """Register a parameter as its own source, unless its storage is registered already, under another name."""
        if not self.of(tensor):
            self.add(tensor, [Source(name, tuple(frozenset({dim}) for dim in range(tensor.ndim)))])

    def add(self, tensor: torch.Tensor, sources: Sequence[Source]) -> None:
        """Register a tensor with a storage of its own; it is kept alive, so that its storage is not reused."""
        self._bases[storage_id(tensor)] = tensor, tuple(sources)

    def of(self, tensor: torch.Tensor) -> tuple[Source, ...]:
        """Return the sources of a registered tensor or of a view of one; an empty tuple for any other tensor."""
        base = self._bases.get(storage_id(tensor))
        if base is None:
            return ()
        base_tensor, base_sources = base
        view_dims = _view_dims(tensor, base_tensor)
        return tuple(Source(source.parameter, _combined_dims(source, view_dims)) for source in base_sources)


class CopyFollower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, registers results that hold entries of parameters in a storage of their own."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources = sources

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and register its result if it holds entries of parameters."""
        result = func(*args, **(kwargs or {}))
        self.follow(func, args, result)
        return result

    def follow(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        """Register the result of an operation if it holds entries of parameters and is no view of a registered tensor.

        Returns:
            Whether the result is one tensor that holds entries of parameters.
        """
        if not isinstance(result, torch.Tensor) or not any(map(self.sources.of, tensors_in(args))):
            return False
        if self.sources.of(result):
            return True
        sources = self._sources_of_result(func, args, result)
        if sources:
            self.sources.add(result, sources)
        return bool(sources)

    def _sources_of_result(self, func: Any, args: tuple[Any, ...], result: torch.Tensor) -> list[Source]:
        """Return the sources of a result with a storage of its own; an empty list if it holds no parameter's entries.

        The result of an elementwise operation, such as a multiplication by a scale, has the sources of the first
        argument that has sources and the shape of the result.
        """
        name = operation_name(func)
        if name in COPIES:
            return list(self.sources.of(args[0]))
        if name in _SOURCES_OF_REARRANGED:
            return _SOURCES_OF_REARRANGED[name](self.sources, args)
        tensors = list(tensors_in(args))
        if torch.Tag.pointwise in func.tags and (name in SCALINGS or len(tensors) == 1):
            sources_of_same_shape = [self.sources.of(tensor) for tensor in tensors if tensor.shape == result.shape]
            return list(next(filter(None, sources_of_same_shape), ()))
        return []


def storage_id(tensor: torch.Tensor) -> int:
    """Return the identity of a tensor's storage, which views share, on the meta device as well."""
    return int(tensor.untyped_storage()._cdata)


def operation_name(func: Any) -> str:
    """Return the name of an operation, without its overload."""
    return str(func._schema.name).rsplit("::", 1)[-1]


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operation's arguments, which may be nested."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple, dict)):
            yield from tensors_in(value)


def _combined_dims(source: Source, view_dims: Sequence[frozenset[int]]) -> tuple[frozenset[int], ...]:
    """Return the parameter's dimensions for each dimension of a view, from those for each dimension of its base."""
    return tuple(frozenset().union(*(source.dims[dim] for dim in base_dims)) for base_dims in view_dims)


def _view_dims(view: torch.Tensor, base: torch.Tensor) -> list[frozenset[int]]:
    """Return, for each dimension of a view, the dimensions of its base that it corresponds to, from the strides."""
    if view.shape == base.shape and view.stride() == base.stride():
        return [frozenset({dim}) for dim in range(base.ndim)]
    # Along a dimension of the view, positions in the storage go in steps of `step` up to `count * step`; along one of
    # the base, in steps of `stride` up to `stride * length`. The two correspond if these ranges overlap.
    lengths_and_strides = list(zip(base.shape, base.stride(), strict=True))
    return [
        frozenset(
            dim
            for dim, (length, stride) in enumerate(lengths_and_strides)
            if count > 1 and length > 1 and step > 0 and stride * length > step and stride < count * step
        )
        for count, step in zip(view.shape, view.stride(), strict=True)
    ]


def _sources_of_indexed(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    """Return the sources of `tensor[:, index]`: the dimensions of the index replace the dimension that is indexed.

    An empty list if several dimensions are indexed, or if the index is a mask.
    """
    tensor, indices = args[:2]
    dims_and_indices = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(dims_and_indices) != 1:
        return []
    dim, index = dims_and_indices[0]
    if index.dtype in (torch.bool, torch.uint8):
        return []
    return [
        Source(source.parameter, (*source.dims[:dim], *[source.dims[dim]] * index.ndim, *source.dims[dim + 1 :]))
        for source in sources.of(tensor)
    ]


def _sources_of_concatenated(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    """Return the sources of all tensors that are concatenated, in order; an empty list if a tensor has none."""
    sources_by_tensor = [sources.of(tensor) for tensor in args[0]]
    if not all(sources_by_tensor):
        return []
    return [source for tensor_sources in sources_by_tensor for source in tensor_sources]


def _sources_of_stacked(sources: Sources, args: tuple[Any, ...]) -> list[Source]:
    """Return the sources of all tensors that are stacked, each with the new dimension; empty if a tensor has none."""
    tensors = args[0]
    dim = args[1] if len(args) > 1 else 0
    dim %= tensors[0].ndim + 1
    return [
        Source(source.parameter, (*source.dims[:dim], frozenset[int](), *source.dims[dim:]))
        for source in _sources_of_concatenated(sources, args)
    ]


_SOURCES_OF_REARRANGED: dict[str, Callable[[Sources, tuple[Any, ...]], list[Source]]] = {
    "index": _sources_of_indexed,
    "cat": _sources_of_concatenated,
    "stack": _sources_of_stacked,
}
"""By the name of an operation that rearranges entries: the function that returns the sources of its result."""
