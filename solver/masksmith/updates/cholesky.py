"""Least squares on given supports by one Cholesky factorisation for each distinct support."""

from __future__ import annotations

import torch

from masksmith._errors import UpdateError

from .operands import Operands
from .supports import Batch

Tensor = torch.Tensor


def factorised_shift(operands: Operands, kept: Tensor, correlation: Tensor, batch: Batch) -> Tensor:
    """Solve `(G_SS + c I) d = (G w_P)_S` for d, the shift of the kept weights, for all rows of a batch.

    A support smaller than the largest one of the batch is padded with rows and columns of the identity.

    Args:
        operands: Weight, Gram matrix G and damping c.
        kept: Bool `[rows, inputs]`, the supports S, in the order of `batch.rows`.
        correlation: `[rows, inputs]`, float64, `G w_P`. In `w_P`, the dropped entries are those of the weight, and the
            kept ones are 0.
        batch: The indices of the rows, grouped by support.

    Returns:
        d, `[rows, inputs]`, 0 outside the supports.

    Raises:
        UpdateError: If the damped Gram matrix is not positive definite on a support.
    """
    count, group_size = batch.rows.shape  # number of supports, and of rows that share each support
    support = kept.view(count, group_size, -1)[:, 0]
    # Indices of the kept inputs, `[count, batch.max_kept]`; smaller supports are filled up with dropped inputs.
    inputs = support.int().argsort(dim=1, descending=True, stable=True)[:, : batch.max_kept]
    is_kept = support.gather(1, inputs)
    system = operands.gram[inputs[:, :, None], inputs[:, None, :]]
    if not bool(is_kept.all()):
        system.mul_(is_kept[:, :, None]).mul_(is_kept[:, None, :])
    damping = system.new_tensor(operands.diagonal_damping)  # two Python numbers would have torch's default dtype
    system.diagonal(dim1=1, dim2=2).add_(torch.where(is_kept, damping, 1.0))
    factor, failed = torch.linalg.cholesky_ex(system)
    if bool(failed.any()):
        row = int(batch.rows[int(failed.argmax()), 0])
        advice = "calibrate with more samples, or increase damping"
        raise UpdateError(f"gram is not positive definite on the support of a row; {advice}", operands.name, row)
    index = inputs[:, None, :].expand(-1, group_size, -1)  # [count, group_size, batch.max_kept]
    right_side = correlation.view(count, group_size, -1).gather(2, index) * is_kept[:, None, :]
    solution = torch.cholesky_solve(right_side.mT, factor).mT * is_kept[:, None, :]
    return torch.zeros_like(correlation).view(count, group_size, -1).scatter_(2, index, solution).view_as(correlation)
