"""First-order Taylor scores: the squared change of the loss, to first order, when weights are set to zero."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from masksmith._errors import ScoresError

from .operands import as_floats, check_range, check_weight, convert_same_shape, dtype_name, is_finite, is_torch

Group = Literal["out", "in"] | tuple[int, int]


@np.errstate(over="ignore")  # `check_range` refuses overflows.
def taylor(
    weight: Any, gradient: Any, group: Group | None = None, *, joint: bool = False, name: str | None = None
) -> Any:
    """Score each weight by the squared first-order change of the loss when it is set to zero, or sum these by group.

    The score of a weight is `(g_ij * w_ij) ** 2`, that of a group `sum_(s in group) (g_s * w_s) ** 2`; with `joint`,
    `(sum_s g_s * w_s) ** 2`, the squared first-order change when the whole group is set to zero. Molchanov et al.,
    Importance Estimation for Neural Network Pruning (CVPR 2019). For several batches, pass the root mean square of
    their gradients: without `joint`, this gives the mean of the scores.

    Args:
        weight: `[out, in, *kernel]`.
        gradient: Gradient of the loss with respect to the weight, same shape.
        group: None scores weights one by one; `"out"` and `"in"` sum over the weights of an output or input channel;
            `(rows, cols)` sums over blocks of the matrix `[out, prod(kernel) * in]`, channel last; blocks at the edges
            are cropped.
        joint: Whether the changes in a group are summed before they are squared; no effect without `group`.
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, inf); every member of a group has the group's score.

    Raises:
        ScoresError: If weight or gradient is no dense array of real numbers; if the shapes differ, or are not those of
            a weight; if the group is invalid; if a score overflows; or if all scores underflow.
    """
    weight = as_floats(weight, name)
    check_weight(weight, name)
    gradient = convert_same_shape(gradient, weight, "gradient", name)
    change = weight * gradient
    # `check_range` needs numbers that are not negative; the signs of the changes matter only to `joint`, below.
    check_range(abs(change), weight, gradient, name=name)
    if joint and group is not None:
        sums = _sum_groups(change, group, name)
        return check_range(sums**2, sums, name=name)
    squares = check_range(change**2, change, name=name)
    return squares if group is None else _sum_groups(squares, group, name)


def _sum_groups(values: Any, group: Group, name: str | None) -> Any:
    """Return a tensor of the same shape with the sum of its group in each entry; refuse overflow of finite values."""
    sums = _add_up(values, group, name)
    if bool(is_finite(values).all()) and not bool(is_finite(sums).all()):
        raise ScoresError(f"the sum of a group overflows in {dtype_name(values)}; scale the weight down", name=name)
    return sums


def _add_up(values: Any, group: Group, name: str | None) -> Any:
    shape = tuple(values.shape)
    if group == "out":
        total = values.reshape(shape[0], -1).sum(1).reshape(-1, *(1 for _ in shape[1:]))
        return _broadcast(total, shape)
    if group == "in":
        total = values.swapaxes(0, 1).reshape(shape[1], -1).sum(1).reshape(1, -1, *(1 for _ in shape[2:]))
        return _broadcast(total, shape)
    if not (isinstance(group, tuple) and len(group) == 2 and all(type(size) is int and size > 0 for size in group)):
        raise ScoresError(f"group={group!r} is not one of: 'out', 'in', (rows, cols)", name=name)
    return _from_matrix(_sum_blocks(_to_matrix(values), *group), shape)


def _sum_blocks(matrix: Any, rows: int, cols: int) -> Any:
    """Sum blocks of a matrix `[out, in]`, and return a matrix with each sum in all entries of its block."""
    for size, axis in ((rows, 0), (cols, 1)):
        axis_length = int(matrix.shape[axis])
        starts = range(0, axis_length, size)
        sums = [_take(matrix, start, size, axis).sum(axis, keepdims=True) for start in starts]
        lengths = [min(size, axis_length - start) for start in starts]
        matrix = _join([_repeat(total, length, axis) for total, length in zip(sums, lengths, strict=True)], axis)
    return matrix


def _take(matrix: Any, start: int, size: int, axis: int) -> Any:
    return matrix[start : start + size] if axis == 0 else matrix[:, start : start + size]


def _repeat(values: Any, length: int, axis: int) -> Any:
    shape = (length, values.shape[1]) if axis == 0 else (values.shape[0], length)
    return _broadcast(values, shape)


def _broadcast(values: Any, shape: tuple[int, ...]) -> Any:
    return values.expand(shape).clone() if is_torch(values) else np.broadcast_to(values, shape).copy()


def _join(pieces: list[Any], axis: int) -> Any:
    if not is_torch(pieces[0]):
        return np.concatenate(pieces, axis)
    import torch

    return torch.cat(pieces, axis)


def _to_matrix(values: Any) -> Any:
    """Return `[out, in, *kernel]` as a matrix `[out, prod(kernel) * in]`, channel last."""
    order = (0, *range(2, values.ndim), 1)
    moved = values.permute(order) if is_torch(values) else values.transpose(order)
    return moved.reshape(values.shape[0], -1)


def _from_matrix(matrix: Any, shape: tuple[int, ...]) -> Any:
    """Undo `_to_matrix`."""
    back = (0, len(shape) - 1, *range(1, len(shape) - 1))
    full = matrix.reshape(shape[0], *shape[2:], shape[1])
    return full.permute(back) if is_torch(full) else full.transpose(back)
