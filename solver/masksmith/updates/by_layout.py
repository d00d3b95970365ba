"""Updates tensors by their layout: each matrix alone; with ADMM each fused part, if a tile would span two parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from masksmith._arrays import read_array
from masksmith._errors import UpdateError, WeightError
from masksmith._solution import Solution
from masksmith._solution.matrices import Matrices
from masksmith._tensors import is_torch
from masksmith.layouts import Layout
from masksmith.patterns import Pattern
from masksmith.patterns.grammar import read_pattern

from .admm import admm
from .reconstruct import reconstruct
from .update import AdmmUpdate, Update


def by_layout(
    layout: Layout,
    method: str,
    weight: Any,
    gram: Any,
    start: Solution,
    *,
    pattern: Pattern,
    solver: str = "auto",
    **options: Any,
) -> tuple[Solution, Update]:
    """Update a tensor by `reconstruct` or by `admm`.

    Args:
        layout: How the tensor is made of matrices.
        method: `reconstruct`, which keeps the mask of `start`, or `admm`, which starts from this mask.
        weight: The tensor.
        gram: Gram matrices of the inputs of the tensor's matrices, `[*stack, in, in]`.
        start: A solution of the tensor, solved with the same layout.
        pattern: Pattern of allowed masks of each matrix; used by `admm` only.
        solver: Solver of the masks; used by `admm` only.
        options: Other options of the method.

    Returns:
        The solution whose mask the updated weight has, and the update.

    Raises:
        UpdateError, PatternError, SolverError: As `reconstruct_by_layout` and `admm_by_layout` raise them; and an
            `UpdateError` if the method is unknown.
    """
    if method == "reconstruct":
        return start, reconstruct_by_layout(layout, weight, start.mask, gram, **options)
    if method == "admm":
        update = admm_by_layout(layout, weight, gram, pattern, start=start, solver=solver, **options)
        return update.solution, update
    raise UpdateError(f"update {method!r} is not one of: reconstruct, admm", options.get("name"))


def reconstruct_by_layout(layout: Layout, weight: Any, mask: Any, gram: Any, **options: Any) -> Update:
    """Reconstruct the weights of each matrix of a tensor by `reconstruct`.

    Args:
        layout: How the tensor is made of matrices.
        weight: The tensor.
        mask: Bool, of the tensor's shape.
        gram: Gram matrices of the inputs of the tensor's matrices, `[*stack, in, in]`.
        options: Options of `reconstruct`.

    Raises:
        UpdateError: As `reconstruct` raises it; if the mask has another shape than the weight; or if the Gram
            matrices are not stacked as the weight is.
        LayoutError: If the weight's shape does not match the layout.
    """
    name = options.get("name")
    weight, mask = _read_weight(weight, name), _read(mask, "mask", name)
    shape, expected = list(mask.shape), list(weight.shape)
    if shape != expected:
        raise UpdateError(f"mask has shape {shape}, the weight has {expected}", name)
    matrices, grams, masks = layout.matrices(weight), _grams(layout, weight, gram, name), layout.matrices(mask)
    updates = [
        reconstruct(_contiguous(matrix), _contiguous(matrix_mask), matrix_gram, **options)
        for matrix, matrix_mask, matrix_gram in zip(matrices, masks, grams, strict=True)
    ]
    updated_weight = _merge(layout.matrices, weight, [update.weight for update in updates])
    return Update(updated_weight, mask, *_errors(updates), _stats(updates))


def admm_by_layout(
    layout: Layout, weight: Any, gram: Any, pattern: Pattern | str, *, start: Solution | None = None, **options: Any
) -> AdmmUpdate:
    """Find weights and mask of each matrix of a tensor by `admm`.

    If a tile of a matrix would contain rows of two fused parts, each fused part is solved on its own.

    Args:
        layout: How the tensor is made of matrices.
        weight: The tensor.
        gram: Gram matrices of the inputs of the tensor's matrices, `[*stack, in, in]`.
        pattern: Pattern of allowed masks of each matrix.
        start: A solution of the tensor to start from; by default, each matrix or part starts from its best mask for the
            first scores of `admm`.
        options: Options of `admm`.

    Returns:
        The update of the tensor; its history is that of the matrix or fused part that took the most rounds.

    Raises:
        UpdateError: As `admm` raises it; if the Gram matrices are not stacked as the weight is; or if `start` was
            solved with another layout or pattern.
        PatternError: If the weight's shape does not match the layout (`LayoutError`); or if the pattern does not fit a
            matrix or part.
        SolverError: As `admm` raises it.
    """
    name = options.get("name")
    weight = _read_weight(weight, name)
    parsed = read_pattern(pattern)
    matrices = Matrices(layout, parsed, tuple(int(length) for length in weight.shape))
    parts = matrices.split(weight)
    starts = [None] * len(parts) if start is None else _starts(matrices, start, name)
    grams = _grams(layout, weight, gram, name)
    parts_per_gram = len(parts) // len(grams)
    updates = [
        admm(_contiguous(part), grams[number // parts_per_gram], parsed, start=starts[number], **options)
        for number, part in enumerate(parts)
    ]
    solution = matrices.join([update.solution for update in updates], name)
    longest = max(updates, key=lambda update: len(update.history))
    updated_weight = _merge(matrices.split, weight, [update.weight for update in updates])
    return AdmmUpdate(
        updated_weight, solution.mask, *_errors(updates), _stats(updates), solution=solution, history=longest.history,
        start_error=math.fsum(update.start_error for update in updates),
        start_masked_error=math.fsum(update.start_masked_error for update in updates),
    )  # fmt: skip


def _read_weight(weight: Any, name: str | None) -> Any:
    return read_array(weight, lambda reason: WeightError(reason, name), "real")


def _read(values: Any, what: str, name: str | None) -> Any:
    """Read a mask or Gram matrices; `what` begins the message of the error."""
    return read_array(values, lambda reason: UpdateError(f"{what}: {reason}", name), "real")


def _starts(matrices: Matrices, start: Solution, name: str | None) -> Sequence[Solution]:
    if not isinstance(start, Solution):
        raise UpdateError(f"start is a {type(start).__name__}, not a Solution as solve returns it", name)
    if tuple(start.mask.shape) != matrices.shape:
        raise UpdateError(f"start has shape {list(start.mask.shape)}, the weight has {list(matrices.shape)}", name)
    starts = matrices.split_solution(start)
    # `split_solution` cannot split the certificate of a solution of other matrices; the parts then have none.
    if any(part._certificate is None for part in starts):
        reason = f"start was not solved with layout={str(matrices.layout)!r} and the pattern {matrices.pattern}"
        raise UpdateError(reason, name)
    return starts


def _grams(layout: Layout, weight: Any, gram: Any, name: str | None) -> list[Any]:
    """Check the shape of the Gram matrices, and return one for each matrix of the weight."""
    if not hasattr(gram, "rows"):
        gram = _read(gram, "gram", name)
    stack = layout.stack_shape(tuple(weight.shape))
    if tuple(gram.shape[: len(stack)]) != stack or len(gram.shape) != len(stack) + 2:
        expected = ", ".join([*map(str, stack), "in, in"])
        reason = f"gram has shape {list(gram.shape)}, the weight's layout needs [{expected}]"
        raise UpdateError(reason, name)
    if not stack:
        return [gram]
    return list(gram.reshape(layout.count(tuple(weight.shape)), *gram.shape[len(stack) :]))


def _merge(split: Callable[[Any], list[Any]], weight: Any, parts: Sequence[Any]) -> Any:
    """Return a copy of the weight in which each part is replaced; `split` returns the parts of a tensor as views."""
    updated_weight = weight.detach().clone() if is_torch(weight) else np.array(weight)
    for target, part in zip(split(updated_weight), parts, strict=True):
        target[...] = part
    return updated_weight


def _errors(updates: Sequence[Update]) -> tuple[float, float, float]:
    return (
        math.fsum(update.error for update in updates),
        math.fsum(update.masked_error for update in updates),
        math.fsum(update.energy for update in updates),
    )


def _stats(updates: Sequence[Update]) -> dict[str, Any]:
    """Return the stats of several updates.

    Times and counts are summed; of `iterations` and `rounds`, the largest is returned; `settled` is True if it is True
    for all updates; `returned` is `mixed` if it differs between updates. Other stats are those of the first update.
    """
    stats = dict(updates[0].stats)
    for key in STAT_COMBINERS.keys() & stats.keys():
        stats[key] = STAT_COMBINERS[key]([update.stats[key] for update in updates])
    return stats


def _one_or_mixed(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else "mixed"


STAT_COMBINERS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    **dict.fromkeys(("factorisations", "rows_as_they_were", "solves", "update_s", "mask_s"), sum),
    **dict.fromkeys(("iterations", "rounds"), max),
    "settled": all,
    "returned": _one_or_mixed,
}
"""By name of a statistic, the function that combines its values of several updates; see `_stats`."""


def _contiguous(part: Any) -> Any:
    return part.contiguous() if is_torch(part) else np.ascontiguousarray(part)
