"""Watches the matrix products of a forward pass, to find the inputs that each weight is multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from masksmith._errors import PruningError

from .parts import MatrixView, matrices_in_memory
from .weights import BlockWeight

Tensor = torch.Tensor
OnInput = Callable[[BlockWeight, int, Tensor], None]

PRODUCTS: Mapping[str, tuple[int, int]] = {
    "mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1), "addmv": (1, 2),
    "_grouped_mm": (0, 1), "linear": (0, 1),
}  # fmt: skip
"""Positions of the two operands among the arguments, by the name of the operation."""


NOT_WHOLE = "its products do not sum over the axis 'in' of its layout, or have a part of it only; exclude it"


@dataclass(frozen=True)
class _Span:
    """A weight, and its tensor: the memory that it covers."""

    weight: BlockWeight
    tensor: Tensor

    @cached_property
    def matrices(self) -> list[MatrixView]:
        """The weight's matrices in memory."""
        return list(matrices_in_memory(self.weight.layout, self.tensor))


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
            self._spans.setdefault(_storage(each.parameter), []).append(_Span(each, each.tensor))

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
        if right.ndim >= 2 and (spans := self._spans_of(right)):
            for span in spans:
                yield from _matched(span, right, left, offsets)
        elif left.ndim >= 2:
            other = right[:, None] if right.ndim < left.ndim else right
            for span in self._spans_of(left):
                yield from _matched(span, left.mT, other.mT, None)

    def _spans_of(self, operand: Tensor) -> list[_Span]:
        """Return the weight that has the operand's first entry, or all parts of the operand's parameter."""
        spans = [span for span in self._spans.get(_storage(operand), ()) if span.tensor.dtype == operand.dtype]
        for span in spans:
            place = operand.storage_offset() - span.tensor.storage_offset()
            if span.weight.part is None and 0 <= place < span.tensor.numel():
                return [span]
        return [span for span in spans if span.weight.part is not None]


def _matched(
    span: _Span, view: Tensor, inputs: Tensor, offsets: Tensor | None
) -> Iterator[tuple[BlockWeight, int, Tensor]]:
    """Pair the matrices in a view `[.., in, out]` of a weight with the inputs `[.., tokens, in]` of each."""
    weight = span.weight
    if weight.part is not None:
        yield from _parts_within(span, view, inputs, offsets)
        return
    weight.check_product(tuple(view.shape[-2:]), int(view.stride(-2)), span.tensor)
    first = int(view.storage_offset()) - int(span.tensor.storage_offset())
    for place, rows in _rows(view, inputs, offsets):
        yield weight, weight.matrix_at(first + place, span.tensor), rows


def _rows(view: Tensor, inputs: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Return the place of each matrix `[in, out]` in a view, relative to its first entry, and the matrix's inputs."""
    if view.ndim == 2:
        yield 0, inputs.reshape(-1, inputs.shape[-1])
        return
    bounds = None if offsets is None else [0, *offsets.tolist()]
    for number in range(len(view)):
        rows = inputs[number] if bounds is None else inputs[bounds[number] : bounds[number + 1]]
        yield number * int(view.stride(0)), rows


def _parts_within(
    span: _Span, view: Tensor, inputs: Tensor, offsets: Tensor | None
) -> Iterator[tuple[BlockWeight, int, Tensor]]:
    """Pair the matrices of a part of a parameter with the inputs of the products that contain them."""
    (in_length, out_length), (in_step, out_step) = view.shape[-2:], view.stride()[-2:]
    for place, rows in _rows(view, inputs, offsets):
        operand = MatrixView(int(view.storage_offset()) + place, (in_length, out_length), (in_step, out_step))
        for number, matrix in enumerate(span.matrices):
            if not operand.overlaps(matrix):
                continue
            if not operand.contains(matrix):
                raise PruningError(NOT_WHOLE, span.weight.matrix_name(number))
            yield span.weight, number, rows


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
