"""Scores of tensors that are made of several matrices, or of a transposed one: each matrix is scored on its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksmith._tensors import is_torch
from masksmith.layouts import Layout

from .by_name import by_name

PER_ENTRY = frozenset({"gradient", "gradient_rms", "scores"})
"""Statistics that have the weight's own shape."""


def by_layout(
    layout: Layout, method: str, weight: Any, given: Any = None, kind: str | None = None, *, name: str | None = None,
    **options: Any,
) -> Any:  # fmt: skip
    """Score the matrices of a tensor by the method of this name.

    Args:
        layout: How the tensor is made of matrices.
        method: As for `by_name`.
        weight: The tensor.
        given: The statistic: of the tensor's own shape where it says something of each entry, or else the statistics of
            the matrices, stacked as they are: `[*stack, in]`, `[*stack, in, in]` or `[*stack, samples, in]`.
        kind: As for `by_name`.
        name: What messages call the tensor.
        options: Of the method.

    Returns:
        The scores, stored as the weight is.

    Raises:
        LayoutError: If the weight's shape does not go with the layout.
        ScoresError: As `by_name`.
    """
    if method == "given":
        return weight if given is None else given
    matrices = layout.matrices(weight)
    statistics = _statistics(layout, weight, given, kind, len(matrices))
    parts = [
        by_name(method, _contiguous(matrix), statistic, kind, name=name, **options)
        for matrix, statistic in zip(matrices, statistics, strict=True)
    ]
    scores = _empty(weight, parts[0])
    for target, part in zip(layout.matrices(scores), parts, strict=True):
        target[...] = part
    return scores


def _statistics(layout: Layout, weight: Any, given: Any, kind: str | None, count: int) -> list[Any]:
    if given is None:
        return [None] * count
    if kind in PER_ENTRY:
        return [_contiguous(matrix) for matrix in layout.matrices(given)]
    stack = len(layout.stack_shape(tuple(weight.shape)))
    return list(given.reshape(count, *given.shape[stack:]))


def _contiguous(matrix: Any) -> Any:
    return matrix.contiguous() if is_torch(matrix) else np.ascontiguousarray(matrix)


def _empty(weight: Any, part: Any) -> Any:
    if not is_torch(weight):
        return np.empty(weight.shape, part.dtype)
    import torch

    return torch.empty(weight.shape, dtype=part.dtype, device=part.device)
