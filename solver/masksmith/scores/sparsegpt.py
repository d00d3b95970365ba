"""Second-order scores (SparseGPT): output error without a weight, after other weights are refitted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masksmith._errors import ScoresError

from .operands import (
    MAX_ASYMMETRY,
    MAX_DAMPING,
    StatisticError,
    as_floats,
    check_range,
    flatten_inputs,
    is_torch,
    per_input,
    read_statistic,
    shape_of,
)

Doubles = npt.NDArray[np.float64]

BAND_ENTRIES = 2**20
"""Entries of a Gram matrix that are compared with their mirror images at a time; at least one row is compared."""


@np.errstate(over="ignore")  # `check_range` refuses overflows.
def sparsegpt(
    weight: Any,
    *,
    gram: Any = None,
    inverse_diagonal: Any = None,
    damping: float = 0.01,
    form: Literal["diagonal", "sequential"] = "diagonal",
    name: str | None = None,
) -> Any:
    """Score each weight by the smallest error of the layer's output without it, `w_ij^2 / [H^-1]_jj`.

    `H = X^T X + damping * mean(diag(X^T X)) * I`. Without damping the score is exactly the squared error that is left
    after the other weights of the row are refitted (Hassibi and Stork's optimal brain surgeon, times two).
    `form="sequential"` divides by `U_jj^2` instead, with `U` the upper Cholesky factor of `H^-1`. This score is the
    smallest error if only columns after j are refitted; SparseGPT (Frantar and Alistarh, ICML 2023) writes it as
    `w^2 / [H^-1]_jj^2`.

    Args:
        weight: `[out, in, *kernel]`.
        gram: `X^T X` of the inputs, `[inputs, inputs]`: `in` of them, or for a convolution `in * prod(kernel)` in the
            order of the flattened weight.
        inverse_diagonal: What `inverse_diagonal` returns, `[inputs]`, positive; instead of `gram`.
        damping: Multiple of the mean diagonal of `gram` that is added to the diagonal, from 0 to 10^9.
        form: `diagonal`, or `sequential` (only with `gram`).
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, inf).

    Raises:
        ScoresError: If a score overflows, or all scores underflow; if not exactly one of `gram` and `inverse_diagonal`
            is passed; if `form` is unknown, or `sequential` without `gram`; if shapes do not match; if `gram` is not
            finite, or not symmetric; if `damping`, which is read only with `gram`, is out of its range; if the damped
            matrix is not positive definite; or if `inverse_diagonal` holds a value that is not positive and finite.
    """
    if (gram is None) == (inverse_diagonal is None):
        raise ScoresError("sparsegpt needs exactly one of gram= and inverse_diagonal=", name=name)
    _check_form(form, name)
    weight = as_floats(weight, name)
    if gram is not None:
        gram = read_statistic(gram, "gram", name)
        _check_inputs(gram, weight, name)
        inverse_diagonal = _divisor(gram, damping, form, name)
    elif form == "sequential":
        raise ScoresError("form='sequential' needs gram=, not inverse_diagonal=", name=name)
    divisor = per_input(inverse_diagonal, weight, "inverse_diagonal", name)
    if bool((divisor == 0).any()):
        raise StatisticError("inverse_diagonal holds 0; that of a damped Gram matrix holds no 0", name=name)
    # The squares of weights may underflow or overflow where the scores do not.
    return check_range((weight / divisor**0.5) ** 2, weight, name=name)


def inverse_diagonal(
    gram: Any, *, damping: float = 0.01, form: Literal["diagonal", "sequential"] = "diagonal", name: str | None = None
) -> Doubles:
    """Return what `sparsegpt` divides by, `[inputs]`, to compute it once if a weight is scored a few rows at a time.

    It is `diag(H^-1)`, or `U_jj^2` for the sequential form; pass either as `inverse_diagonal=`, without `form`.

    Args:
        gram: `X^T X` of the inputs, `[inputs, inputs]`.
        damping: As in `sparsegpt`.
        form: As in `sparsegpt`.
        name: Name of the weight in error messages.

    Raises:
        ScoresError: If `gram` is not a square matrix, not finite, or not symmetric; if `damping` is out of its range;
            if `form` is unknown; or if the damped Gram matrix is not positive definite.
    """
    _check_form(form, name)
    gram = read_statistic(gram, "gram", name)
    shape = shape_of(gram)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise StatisticError(f"gram has shape {list(shape)}, expected [inputs, inputs]", name=name)
    return _divisor(gram, damping, form, name)


def _check_form(form: str, name: str | None) -> None:
    if form not in ("diagonal", "sequential"):
        raise ScoresError(f"form={form!r} is neither 'diagonal' nor 'sequential'", name=name)


def _check_inputs(gram: Any, weight: Any, name: str | None) -> None:
    inputs = shape_of(flatten_inputs(weight, name))[1]
    if shape_of(gram) != (inputs, inputs):
        raise StatisticError(
            f"gram has shape {list(shape_of(gram))}, the weight {list(shape_of(weight))} needs {[inputs, inputs]}",
            name=name,
        )


def _divisor(gram: Any, damping: float, form: str, name: str | None) -> Doubles:
    matrix: Doubles = np.array(gram.cpu().double().numpy() if is_torch(gram) else gram, np.float64)
    if not 0 <= damping <= MAX_DAMPING:
        raise ScoresError(f"damping={damping!r} is not a number from 0 to {MAX_DAMPING:g}", name=name)
    if not np.isfinite(matrix).all():
        raise StatisticError("gram holds NaN or infinity", name=name)
    _check_symmetric(matrix, name)
    matrix.flat[:: len(matrix) + 1] += damping * matrix.diagonal().mean()
    try:
        lower = np.linalg.cholesky(matrix)
        lower_inverse = np.linalg.inv(lower)
        divisor: Doubles = (lower_inverse**2).sum(0)
        if form == "sequential":  # the inverse of the matrix is `lower_inverse.T @ lower_inverse`
            divisor = np.linalg.cholesky(lower_inverse.T @ lower_inverse).diagonal() ** 2
    except np.linalg.LinAlgError:
        raise StatisticError("gram is not positive definite; give more samples or more damping", name=name) from None
    return divisor


def _check_symmetric(matrix: Doubles, name: str | None) -> None:
    """Refuse a matrix with other values in one triangle than in the other: the factorisation reads only one."""
    step = max(1, BAND_ENTRIES // max(1, len(matrix)))
    largest = max(float(matrix.max(initial=0)), -float(matrix.min(initial=0)))
    for first in range(0, len(matrix), step):
        skew = np.abs(matrix[first : first + step] - matrix[:, first : first + step].T)
        if skew.max() > MAX_ASYMMETRY * largest:
            row, column = (int(position) for position in np.unravel_index(int(skew.argmax()), skew.shape))
            expected = "expected X^T X of the layer's inputs, with both triangles"
            raise StatisticError("gram is not symmetric", (first + row, column), name, expected)
