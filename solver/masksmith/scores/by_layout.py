"""Scores of tensors by their layout: each matrix of a tensor, stored transposed or not, is scored on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import is_torch
from masksmith.layouts import Layout

from .by_name import by_name
from .operands import (
    ScoreUnderflowError,
    StatisticError,
    has_normal_score,
    read_statistic,
    shape_of,
    underflow_allowed,
)

PER_ENTRY = frozenset({"gradient", "gradient_rms", "scores"})
"""Kinds of statistics that have one number per entry of the weight."""


def by_layout(
    layout: Layout, method: str, weight: Any, statistic: Any = None, kind: str | None = None, *,
    name: str | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Score each matrix of a tensor by a method; for the method `given`, return the given scores, without checks.

    Args:
        layout: How the tensor is made of matrices.
        method: As for `by_name`.
        weight: The tensor.
        statistic: Of the tensor's shape for the kinds `PER_ENTRY`; else the statistics of the matrices, stacked as the
            matrices are: `[*stack, in]`, `[*stack, in, in]` or `[*stack, samples, in]`. For the method `given`, the
            scores (by default the weight itself).
        kind: Kind of the statistic, or None; see `by_name`.
        name: Name of the tensor in error messages.
        options: Options of the method.

    Returns:
        Scores of the weight's shape, each at the place of its entry.

    Raises:
        LayoutError: If the weight's shape does not match the layout.
        ScoresError: As `by_name` raises it, with the index in the tensor; that all scores underflow is an error only if
            it holds for all matrices. Or if the statistic has another shape than the weight and layout need.
    """
    if method == "given":
        return weight if statistic is None else statistic
    matrices = layout.matrices(weight)
    statistics = _split_statistic(layout, weight, statistic, kind, name)
    score: Callable[..., Any] = partial(by_name, kind=kind, name=name, **options)
    scores_of_matrices, underflow = list[Any](), None
    for number, (matrix, matrix_statistic) in enumerate(zip(matrices, statistics, strict=True)):
        with _locating_errors(layout, shape_of(weight), number):
            try:
                scores_of_matrices.append(score(method, _contiguous(matrix), matrix_statistic))
            except ScoreUnderflowError as error:
                underflow = underflow or error
                with underflow_allowed():
                    scores_of_matrices.append(score(method, _contiguous(matrix), matrix_statistic))
    if underflow is not None and not any(map(has_normal_score, scores_of_matrices)):
        raise underflow
    scores = _empty(weight, scores_of_matrices[0])
    for view, matrix_scores in zip(layout.matrices(scores), scores_of_matrices, strict=True):
        view[...] = matrix_scores
    return scores


@contextmanager
def _locating_errors(layout: Layout, shape: tuple[int, ...], number: int) -> Iterator[None]:
    """Turn the index of an error in the matrix `number` into that in the tensor, or in its stacked statistic."""
    try:
        yield
    except ScoresError as error:
        if error.index is None:
            raise
        if isinstance(error, StatisticError):
            raise error.at((*layout.stack_index(shape, number), *error.index)) from None
        raise error.at(layout.tensor_index(shape, number, error.index)) from None


def _split_statistic(layout: Layout, weight: Any, statistic: Any, kind: str | None, name: str | None) -> list[Any]:
    """Return the statistic of each matrix of the weight."""
    shape = shape_of(weight)
    stack = layout.stack_shape(shape)
    if statistic is None:
        return [None] * layout.count(shape)
    statistic = read_statistic(statistic, kind or "statistic", name)
    expected = shape if kind in PER_ENTRY else stack
    if shape_of(statistic)[: len(expected)] != expected:
        needed = f"the shape {list(shape)}" if kind in PER_ENTRY else f"the matrices' dimensions {list(stack)} first"
        reason = f"{kind or 'statistic'} has shape {list(shape_of(statistic))}, the weight's layout needs {needed}"
        raise StatisticError(reason, name=name)
    if kind in PER_ENTRY:
        return [_contiguous(matrix) for matrix in layout.matrices(statistic)]
    return list(statistic.reshape(layout.count(shape), *statistic.shape[len(stack) :]))


def _contiguous(matrix: Any) -> Any:
    return matrix.contiguous() if is_torch(matrix) else np.ascontiguousarray(matrix)


def _empty(weight: Any, scores: Any) -> Any:
    """Return an uninitialised tensor of the weight's shape and library, with the dtype and device of the scores."""
    if not is_torch(weight):
        return np.empty(weight.shape, scores.dtype)
    import torch

    return torch.empty(weight.shape, dtype=scores.dtype, device=scores.device)
