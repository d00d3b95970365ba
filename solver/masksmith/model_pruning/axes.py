"""Finds the axes of weights by the matrix products of a forward pass, if names and shapes do not show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, permutations
from typing import Any

import torch

from masksmith.layouts import Layout
from masksmith.layouts.layout import AxisRole

from .blocks import BlockList
from .capture import capture_batch
from .parts import MatrixView, matrices_in_memory
from .products import ProductMode, operands_with_inputs, storage_address
from .weights import parameters_without_layout

Tensor = torch.Tensor


def with_observed_layouts(
    model: torch.nn.Module, blocks: BlockList, batches: Iterable[Any], layouts: Mapping[str, str] | None
) -> tuple[dict[str, str], frozenset[str], Iterator[Any]]:
    """Add layouts of weights in the blocks that neither names nor modules nor the caller's layouts show.

    For these weights, the first batch is run through the model. A layout is added if under it each product with the
    weight multiplies by whole matrices. Of several such layouts, as for heads that are multiplied together (`in out
    stack` and `in stack out`), the one whose axis `out` is last is added.

    Args:
        model: The model, prepared for forward passes.
        blocks: Its blocks.
        batches: The batches.
        layouts: The caller's layouts, by name of weight.

    Returns:
        The caller's layouts with the added ones; the names of weights whose axes are still unknown; and an iterator
        over all batches, the first one included.

    Raises:
        PruningError: As `capture_batch`, of the first batch.
    """
    layouts = dict(layouts or {})
    batches = iter(batches)
    parameters = parameters_without_layout(model, blocks, layouts)
    first = list(islice(batches, 1)) if parameters else []
    if first:
        with _OperandRecorder(parameters, model.parameters()) as recorder:
            capture_batch(model, blocks, first[0], 0)
        for name, parameter in parameters.items():
            layout = _layout(parameter.detach(), recorder.operands[name])
            if layout is not None:
                layouts[name] = str(layout)
    return layouts, frozenset(parameters.keys() - layouts.keys()), chain(first, batches)


class _OperandRecorder(ProductMode):  # type: ignore[no-untyped-call]
    """Records, for some of a model's parameters, which matrices in their memory are operands of products.

    Args:
        watched: The parameters to watch, by name.
        parameters: All parameters of the model. In a product of two, the right one is the weight.

    Attributes:
        operands: By name of the parameter, the different operands `[in, out]`.
    """

    def __init__(self, watched: Mapping[str, Tensor], parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self.operands: defaultdict[str, set[MatrixView]] = defaultdict(set)
        self._names = {storage_address(parameter): name for name, parameter in watched.items()}
        self._addresses = {storage_address(parameter) for parameter in parameters} - {0}

    def on_product(self, left: Tensor, right: Tensor, group_ends: Tensor | None) -> None:
        """Record the operand that is in the memory of a parameter; the right one, if both are."""
        operand = right if storage_address(right) in self._addresses else left.mT if left.ndim >= 2 else left
        address = storage_address(operand)
        name = self._names.get(address) if address else None
        if name is None or operand.ndim < 2:
            return
        # Each group of rows is multiplied by a different range of the operand's inputs or outputs, which no layout
        # describes. So an empty operand is recorded: it contains no matrix, and `_layout` then returns None.
        if group_ends is not None and operand.ndim == 2:
            self.operands[name].add(MatrixView(-1, (0, 0), (0, 0)))
            return
        self.operands[name].update(view for view, _ in operands_with_inputs(operand, operand, None))


def _layout(tensor: Tensor, operands: set[MatrixView]) -> Layout | None:
    """Return the layout by which each operand consists of whole matrices of a weight; None if there is none."""
    if not operands:
        return None
    dimensions = range(tensor.ndim)
    for out_axis, in_axis in sorted(permutations(dimensions, 2), reverse=True):
        layout = Layout(tuple(_role(dimension, out_axis, in_axis) for dimension in dimensions))
        matrices = list(matrices_in_memory(layout, tensor))
        if all(_consists_of(operand, matrices) for operand in operands):
            return layout
    return None


def _role(dimension: int, out_axis: int, in_axis: int) -> AxisRole:
    return "out" if dimension == out_axis else "in" if dimension == in_axis else "stack"


def _consists_of(operand: MatrixView, matrices: Sequence[MatrixView]) -> bool:
    """Whether an operand is one of the matrices of a weight, or several of them side by side."""
    contained = [matrix for matrix in matrices if operand.contains(matrix)]
    return bool(contained) and sum(matrix.shape[1] for matrix in contained) == operand.shape[1]
