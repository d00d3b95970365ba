"""Watches the matrix products of a forward pass, to find the inputs that each weight is multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .weights import BlockWeight

Tensor = torch.Tensor
OnInput = Callable[[BlockWeight, int, Tensor], None]

PRODUCTS: Mapping[str, tuple[int, int]] = {
    "mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1), "addmv": (1, 2),
    "_grouped_mm": (0, 1), "linear": (0, 1),
}  # fmt: skip
"""Positions of the two operands among the arguments, by the name of the operation."""


@dataclass(frozen=True)
class _Span:
    """A weight, and its tensor: the memory that it covers."""

    weight: BlockWeight
    tensor: Tensor


class ProductWatcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls a function with the inputs `[tokens, in]` of each matrix of each weight.

    A weight is recognised by its memory, so products with views, slices and transposes of it count, too.

    Args:
        weights: The weights to watch.
        on_input: Called with the weight, the number of its matrix, and the inputs.
    """

    def __init__(self, weights: Sequence[BlockWeight], on_input: OnInput) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_input = on_input
        self._spans: dict[int, list[_Span]] = {}
        for each in weights:
            self._spans.setdefault(_storage(each.parameter), []).append(_Span(each, each.parameter.detach()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; if it multiplies with a weight, call `on_input` with the other operand."""
        name = str(func._schema.name).rpartition("::")[2]
        if name in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[name])
            offsets = args[2] if name == "_grouped_mm" and len(args) > 2 else (kwargs or {}).get("offs")
            right = right.t() if name == "linear" else right
            for weight, matrix, inputs in self._inputs(left, right, offsets):
                self._on_input(weight, matrix, inputs)
        return func(*args, **(kwargs or {}))

    def _inputs(self, left: Tensor, right: Tensor, offsets: Tensor | None) -> Iterator[tuple[BlockWeight, int, Tensor]]:
        if (span := self._span(right)) is not None and right.ndim >= 2:
            yield from _matched(span, right, left, offsets)
        elif (span := self._span(left)) is not None and left.ndim >= 2:
            other = right[:, None] if right.ndim < left.ndim else right
            yield from _matched(span, left.mT, other.mT, None)

    def _span(self, operand: Tensor) -> _Span | None:
        for span in self._spans.get(_storage(operand), ()):
            place = operand.storage_offset() - span.tensor.storage_offset()
            if operand.dtype == span.tensor.dtype and 0 <= place < span.tensor.numel():
                return span
        return None


def _matched(
    span: _Span, view: Tensor, inputs: Tensor, offsets: Tensor | None
) -> Iterator[tuple[BlockWeight, int, Tensor]]:
    """Pair the matrices in a view `[.., in, out]` of a weight with the inputs `[.., tokens, in]` of each."""
    weight = span.weight
    weight.check_product(tuple(view.shape[-2:]), int(view.stride(-2)), span.tensor)
    first = int(view.storage_offset()) - int(span.tensor.storage_offset())
    if view.ndim == 2:
        yield weight, weight.matrix_at(first, span.tensor), inputs.reshape(-1, inputs.shape[-1])
        return
    bounds = None if offsets is None else [0, *offsets.tolist()]
    for number in range(len(view)):
        rows = inputs[number] if bounds is None else inputs[bounds[number] : bounds[number + 1]]
        yield weight, weight.matrix_at(first + number * int(view.stride(0)), span.tensor), rows


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
