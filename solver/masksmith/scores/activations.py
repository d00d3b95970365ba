"""Scores that multiply the importance of a weight by the norm of its input: Wanda and RIA."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from masksmith._errors import ScoresError

from .operands import as_floats, check_range, check_weight, convert_like, is_torch, per_input, read_statistic

LARGEST_POWER = 10.0
"""Largest exponent `power` of `ria`. With larger ones, more of the values `norm**power` would be 0 or infinite in
float32."""


@np.errstate(over="ignore")  # `check_range` refuses overflows.
def wanda(weight: Any, norms: Any, *, name: str | None = None) -> Any:
    """Score each weight by its magnitude times the norm of its input, `|w_ij| * ||x_j||_2`.

    Sun et al., A Simple and Effective Pruning Approach for Large Language Models (ICLR 2024).

    Args:
        weight: `[out, in, *kernel]`.
        norms: Euclidean norms of the inputs over all samples: `[in, *kernel]`, the same flattened, or `[in]`.
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, inf).

    Raises:
        ScoresError: If a shape is wrong; if a norm is negative or not finite; if a score overflows; or if all scores
            underflow.
    """
    weight = as_floats(weight, name)
    factors = per_input(norms, weight, "norms", name)
    return check_range(abs(weight) * factors, weight, factors, name=name)


@np.errstate(over="ignore", invalid="ignore")  # `check_range` refuses overflows.
def ria(weight: Any, norms: Any = None, power: float = 0.5, *, column_sums: Any = None, name: str | None = None) -> Any:
    """Score each weight by its share of its row and of its column, times its input's norm to a power.

    `(|w_ij| / sum_k |w_ik| + |w_ij| / sum_k |w_kj|) * ||x_j||_2 ** power`: relative importance and activations, Zhang
    et al., Plug-and-Play (ICLR 2024). A share of a row or column of zeros is 0.

    Args:
        weight: `[out, in, *kernel]`; the whole weight, unless `column_sums` is passed.
        norms: Norms of the inputs as in `wanda`; by default all are 1.
        power: Exponent of the norms, from 0 to 10; 0.5 in the paper.
        column_sums: Sums of `|w|` over all outputs, for a weight that is scored a few rows at a time; by default
            those of `weight`.
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, inf).

    Raises:
        ScoresError: If a shape is wrong; if a norm or a sum is negative or not finite; if the power is out of its
            range; if a score overflows; or if all scores underflow.
    """
    if not (isinstance(power, Real) and 0 <= power <= LARGEST_POWER):
        raise ScoresError(f"power={power!r} is not a number from 0 to {LARGEST_POWER:g}", name=name)
    magnitudes = abs(as_floats(weight, name))
    shape = check_weight(magnitudes, name)
    row_sums = magnitudes.reshape(shape[0], -1).sum(1).reshape(-1, *(1 for _ in shape[1:]))
    _check_sums(row_sums, magnitudes, "row", name)
    totals = _sum_columns(magnitudes) if column_sums is None else read_statistic(column_sums, "column_sums", name)
    _check_sums(totals, magnitudes, "column", name)
    shares = _share(magnitudes, row_sums) + _share(magnitudes, per_input(totals, magnitudes, "column_sums", name))
    if norms is None:
        return shares
    factors = per_input(norms, magnitudes, "norms", name)
    scores = shares * factors ** float(power)
    scores[shares == 0] = 0  # 0 times a power that overflows is NaN
    return check_range(scores, shares, factors, name=name)


def column_sums(weight: Any) -> Any:
    """Sum `|w|` over all outputs, in float64: `[in, *kernel]`; sums over slices of rows can be added."""
    return _sum_columns(abs(as_floats(weight)))


def _sum_columns(magnitudes: Any) -> Any:
    return magnitudes.double().sum(0) if is_torch(magnitudes) else magnitudes.sum(0, dtype=np.float64)


def _check_sums(sums: Any, magnitudes: Any, label: str, name: str | None) -> None:
    """Check that sums of magnitudes are finite in the dtype of the magnitudes.

    Raises:
        ScoresError: If a sum is not finite, because a weight is NaN or infinite, or because the sum overflows.
    """
    largest = float(np.finfo(str(magnitudes.dtype).removeprefix("torch.")).max)
    if not bool((sums <= largest).all()):
        reason = f"the sum of the magnitudes of a {label} is not finite; correct the weight, or scale it down"
        raise ScoresError(reason, name=name)


def _share(magnitudes: Any, total: Any) -> Any:
    """Divide magnitudes by the totals of their rows or columns; where a total is 0, divide by 1."""
    divisor = total + convert_like(total == 0, magnitudes) if is_torch(magnitudes) else np.where(total == 0, 1, total)
    return magnitudes / divisor
