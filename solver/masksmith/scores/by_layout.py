"""Scores of tensors that consist of several matrices, or of a transposed one: each matrix is scored on its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksmith._tensors import is_torch
from masksmith.layouts import Layout

from .by_name import by_name

PER_ENTRY = frozenset({"gradient", "gradient_rms", "scores"})
"""Statistics that have the weight's own shape."""


def by_layout(
    layout: Layout, method: str, weight: Any, statistic: Any = None, kind: str | None = None, *,
    name: str | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Score the matrices of a tensor by the method of this name.

    Args:
        layout: How the tensor is made of matrices.
        method: As for `by_name`.
        weight: The tensor.
        statistic: Of the tensor's shape for the kinds `PER_ENTRY`; else the statistics of the matrices, stacked as they
            are: `[*stack, in]`, `[*stack, in, in]` or `[*stack, samples, in]`. For the method `given`, the scores.
        kind: As for `by_name`.
        name: Name of the tensor in error messages.
        options: Options of the method.

    Returns:
        Scores of the weight's shape and layout.

    Raises:
        LayoutError: If the weight's shape does not match the layout.
        ScoresError: As `by_name`.
    """
    if method == "given":
        return weight if statistic is None else statistic
    matrices = layout.matrices(weight)
    statistics = _split_statistic(layout, weight, statistic, kind, len(matrices))
    parts = [
        by_name(method, _contiguous(matrix), part, kind, name=name, **options)
        for matrix, part in zip(matrices, statistics, strict=True)
    ]
    scores = _empty(weight, parts[0])
    for target, part in zip(layout.matrices(scores), parts, strict=True):
        target[...] = part
    return scores


def _split_statistic(layout: Layout, weight: Any, statistic: Any, kind: str | None, count: int) -> list[Any]:
    """Return the statistic of each of the `count` matrices."""
    if statistic is None:
        return [None] * count
    if kind in PER_ENTRY:
        return [_contiguous(matrix) for matrix in layout.matrices(statistic)]
    stack = len(layout.stack_shape(tuple(weight.shape)))
    return list(statistic.reshape(count, *statistic.shape[stack:]))


def _contiguous(matrix: Any) -> Any:
    return matrix.contiguous() if is_torch(matrix) else np.ascontiguousarray(matrix)


def _empty(weight: Any, part: Any) -> Any:
    if not is_torch(weight):
        return np.empty(weight.shape, part.dtype)
    import torch

    return torch.empty(weight.shape, dtype=part.dtype, device=part.device)
