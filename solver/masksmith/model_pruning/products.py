"""Watches the matrix products of a forward pass, to find the inputs that each weight is multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from masksmith._errors import PruningError
from masksmith.calibration.matrices import tensors_in
from masksmith.calibration.products import PRODUCTS as CALIBRATED_PRODUCTS
from masksmith.calibration.unfollowed import UnfollowedUses, operation_name, unfollowed_reason

from .parts import MatrixView, matrices_in_memory
from .weights import BlockWeight

Tensor = torch.Tensor
OnInput = Callable[[BlockWeight, int, Tensor], None]
OnUnfollowed = Callable[[str, str], None]

PRODUCTS: Mapping[str, tuple[int, int]] = {**CALIBRATED_PRODUCTS, "_grouped_mm": (0, 1)}
"""Positions of the left and the right operand among the arguments, by the name of the operation."""

NOT_WHOLE = "its products do not sum over the axis 'in' of its layout, or contain only some of its inputs; exclude it"
IN_PARTS = "it is multiplied in parts, which may have different inputs; exclude it"


@dataclass(frozen=True)
class _WatchedWeight:
    """A weight and its tensor; an operand of a product is recognised by being in the tensor's memory."""

    weight: BlockWeight
    tensor: Tensor

    @cached_property
    def matrices(self) -> list[MatrixView]:
        """Where the weight's matrices are in memory."""
        return list(matrices_in_memory(self.weight.layout, self.tensor))

    def matrices_in(self, operand: MatrixView) -> list[int]:
        """Return the numbers of the matrices that an operand inside the weight consists of: one, or several of a stack.

        Raises:
            PruningError: If the operand has only some of the outputs of a matrix.
        """
        first = self.weight.matrix_at(operand.start - int(self.tensor.storage_offset()), self.tensor)
        output_count = self.matrices[first].shape[1]
        candidates = [first] if operand.shape[1] == output_count else range(len(self.matrices))
        numbers = [number for number in candidates if operand.contains(self.matrices[number])]
        if len(numbers) * output_count != operand.shape[1]:
            raise PruningError(IN_PARTS, self.weight.name)
        return numbers


class ProductMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `on_product` before each matrix product, with the operands as `[.., tokens, in]` and `[.., in, out]`."""

    # Operators such as `flex_attention` run, but the operations inside of them are not watched.
    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def on_product(self, left: Tensor, right: Tensor, group_ends: Tensor | None) -> None:
        """Process a product; called before it is computed, and implemented by subclasses.

        Args:
            left: The left operand.
            right: The right operand.
            group_ends: For each matrix of a grouped product, the end of its rows; None for other products.
        """
        raise NotImplementedError

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `on_product` if an operation is a product; then run the operation."""
        name = operation_name(func)
        if name in PRODUCTS:
            left, right = (args[position] for position in PRODUCTS[name])
            # The third argument of `_grouped_mm`, or its keyword `offs`, has the ends of the groups of rows.
            group_ends = args[2] if name == "_grouped_mm" and len(args) > 2 else (kwargs or {}).get("offs")
            self.on_product(left, right.t() if name == "linear" else right, group_ends)
        return func(*args, **(kwargs or {}))


class ProductWatcher(ProductMode):  # type: ignore[no-untyped-call]
    """Calls a function with the inputs `[tokens, in]` of each product with a matrix of a weight.

    A weight is recognised by its memory, so products with its views, slices and transposes are watched, too. Products
    with copies of it are not.

    Args:
        weights: The weights to watch.
        on_input: Called with the weight, the number of the matrix in the weight, and the inputs.
        on_unfollowed: Called with the name of a weight and a reason if an operation uses the weight, or a copy of it,
            otherwise than in a product that is watched.
    """

    def __init__(
        self,
        weights: Sequence[BlockWeight],
        on_input: OnInput,
        on_unfollowed: OnUnfollowed = lambda name, reason: None,
    ) -> None:
        super().__init__()
        self._on_input, self._on_unfollowed = on_input, on_unfollowed
        self._uses: UnfollowedUses[str] = UnfollowedUses(self._names_in)
        self._watched_by_storage: dict[int, list[_WatchedWeight]] = {}
        for weight in weights:
            watched = _WatchedWeight(weight, weight.tensor)
            self._watched_by_storage.setdefault(storage_address(weight.parameter), []).append(watched)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and call `on_input` or `on_unfollowed` if it uses a weight."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        arguments, results = list(tensors_in([*args, *(kwargs or {}).values()])), list(tensors_in((result,)))
        for name in self._uses.find(func, arguments, results, self._multiplied(operation_name(func), args)):
            self._on_unfollowed(name, unfollowed_reason(func))
        return result

    def _multiplied(self, name: str, args: Sequence[Any]) -> list[Tensor]:
        """Return the argument of a product that is the weight, as in `_inputs`; none if the operation is no product."""
        if name not in PRODUCTS:
            return []
        left, right = (args[position] for position in PRODUCTS[name])
        return [next((each for each in (right, left) if each.ndim >= 2 and self._watched_in(each)), left)]

    def _names_in(self, tensor: Tensor) -> list[str]:
        return [watched.weight.name for watched in self._watched_in(tensor)]

    def on_product(self, left: Tensor, right: Tensor, group_ends: Tensor | None) -> None:
        """Call `on_input` for each matrix of a weight that is multiplied."""
        for weight, matrix, inputs in self._inputs(left, right, group_ends):
            self._on_input(weight, matrix, inputs)

    def _inputs(
        self, left: Tensor, right: Tensor, group_ends: Tensor | None
    ) -> Iterator[tuple[BlockWeight, int, Tensor]]:
        """Yield each matrix of a product: its weight, its number in the weight, and its inputs `[tokens, in]`.

        The weight is in the right operand `[.., in, out]`, or else in the left one `[.., out, in]`, or in neither.
        """
        if right.ndim >= 2 and (watched_weights := self._watched_in(right)):
            for watched in watched_weights:
                yield from _matrices_with_inputs(watched, right, left, group_ends)
        elif left.ndim >= 2:
            columns = right[:, None] if right.ndim == 1 else right
            for watched in self._watched_in(left):
                yield from _matrices_with_inputs(watched, left.mT, columns.mT, group_ends)

    def _watched_in(self, operand: Tensor) -> list[_WatchedWeight]:
        """Return the weight that has the operand's first entry, else all parts of the operand's parameter.

        The list is empty if the operand is neither in a watched weight nor in a parameter with watched parts.
        """
        in_storage = self._watched_by_storage.get(storage_address(operand), ())
        candidates = [watched for watched in in_storage if watched.tensor.dtype == operand.dtype]
        for watched in candidates:
            offset = operand.storage_offset() - watched.tensor.storage_offset()
            if watched.weight.part is None and 0 <= offset < watched.tensor.numel():
                return [watched]
        return [watched for watched in candidates if watched.weight.part is not None]


def _matrices_with_inputs(
    watched: _WatchedWeight, view: Tensor, inputs: Tensor, group_ends: Tensor | None
) -> Iterator[tuple[BlockWeight, int, Tensor]]:
    """Yield the matrices in a view `[.., in, out]` of a weight, each with its inputs.

    Args:
        watched: The weight.
        view: The operand of the product.
        inputs: The other operand, `[.., tokens, in]`.
        group_ends: For each matrix, the end of its rows of `inputs`; None unless the product is a grouped one.

    Raises:
        PruningError: If a grouped product cuts one matrix into groups of its inputs or outputs, or the product sums
            over another axis than `in`, or has only some of a matrix's inputs or outputs.
    """
    weight = watched.weight
    if group_ends is not None and view.ndim == 2:
        raise PruningError(NOT_WHOLE, weight.name)
    if weight.part is not None:
        yield from _part_matrices_with_inputs(watched, view, inputs, group_ends)
        return
    weight.check_inputs(view.shape[-2], int(view.stride(-2)), watched.tensor)
    for operand, rows in operands_with_inputs(view, inputs, group_ends):
        for number in watched.matrices_in(operand):
            yield weight, number, rows


def operands_with_inputs(
    view: Tensor, inputs: Tensor, group_ends: Tensor | None
) -> Iterator[tuple[MatrixView, Tensor]]:
    """Yield each matrix `[in, out]` of a view and the inputs `[tokens, in]` of the matrix.

    A view of two dimensions is one matrix; one of three dimensions is a stack of matrices.
    """
    (in_length, out_length), (in_step, out_step) = view.shape[-2:], view.stride()[-2:]
    first = MatrixView(int(view.storage_offset()), (in_length, out_length), (in_step, out_step))
    if view.ndim == 2:
        yield first, inputs.reshape(-1, inputs.shape[-1])
        return
    bounds = None if group_ends is None else [0, *group_ends.tolist()]
    for number in range(len(view)):
        rows = inputs[number] if bounds is None else inputs[bounds[number] : bounds[number + 1]]
        yield replace(first, start=first.start + number * int(view.stride(0))), rows


def _part_matrices_with_inputs(
    watched: _WatchedWeight, view: Tensor, inputs: Tensor, group_ends: Tensor | None
) -> Iterator[tuple[BlockWeight, int, Tensor]]:
    """Yield those matrices of a part of a parameter that are in a view of the parameter, each with its inputs.

    Raises:
        PruningError: If only some inputs or outputs of a matrix are in the view, or the product sums over another axis.
    """
    for operand, rows in operands_with_inputs(view, inputs, group_ends):
        for number, matrix in enumerate(watched.matrices):
            if not operand.overlaps(matrix):
                continue
            if not operand.contains(matrix):
                raise PruningError(NOT_WHOLE, watched.weight.matrix_name(number))
            yield watched.weight, number, rows


def storage_address(tensor: Tensor) -> int:
    """Return the address of a tensor's storage; 0 for tensors without storage: sparse ones, and some subclasses."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return 0
