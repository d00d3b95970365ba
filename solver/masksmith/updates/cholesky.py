"""Least squares on given supports by one Cholesky factorisation for group_size distinct support."""

from __future__ import annotations

import torch

from masksmith._errors import UpdateError

from .operands import Operands
from .supports import Batch

Tensor = torch.Tensor


def factorised_shift(operands: Operands, kept: Tensor, correlation: Tensor, batch: Batch) -> Tensor:
    """Solve `(G_SS + c I) d = (G w_P)_S` for all rows of a batch; shorter supports are padded with the identity.

    Args:
        operands: Weight, Gram matrix G and damping c.
        kept: Bool `[rows, inputs]`, the supports S, in the order of the batch.
        correlation: `[rows, inputs]`, float64, `G w_P`: the dropped weights' output times the inputs.
        batch: Supports of these rows.

    Returns:
        d, `[rows, inputs]`, 0 outside the supports.

    Raises:
        UpdateError: If the damped Gram matrix is not positive definite on a support.
    """
    count, group_size = batch.rows.shape  # supports, and rows that share each
    support = kept.view(count, group_size, -1)[:, 0]
    places = support.int().argsort(dim=1, descending=True, stable=True)[:, : batch.kept]  # [count, kept]
    is_kept = support.gather(1, places)
    system = operands.gram[places[:, :, None], places[:, None, :]]
    if not bool(is_kept.all()):
        system.mul_(is_kept[:, :, None]).mul_(is_kept[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_(torch.where(is_kept, operands.damping, 1.0))
    factor, failed = torch.linalg.cholesky_ex(system)
    if bool(failed.any()):
        row = int(batch.rows[int(failed.argmax()), 0])
        advice = "calibrate with more samples, or increase damping"
        raise UpdateError(f"gram is not positive definite on the support of a row; {advice}", operands.name, row)
    index = places[:, None, :].expand(-1, group_size, -1)  # [count, group_size, kept]
    rhs = correlation.view(count, group_size, -1).gather(2, index) * is_kept[:, None, :]
    solution = torch.cholesky_solve(rhs.mT, factor).mT * is_kept[:, None, :]
    return torch.zeros_like(correlation).view(count, group_size, -1).scatter_(2, index, solution).view_as(correlation)
