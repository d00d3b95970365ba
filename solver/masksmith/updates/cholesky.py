"""Least squares on given supports by one Cholesky factorisation for each distinct support."""

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
    supports, each = batch.rows.shape
    firsts = kept.view(supports, each, -1)[:, 0]
    places = firsts.int().argsort(dim=1, descending=True, stable=True)[:, : batch.kept]  # [supports, kept]
    real = firsts.gather(1, places)
    system = operands.gram[places[:, :, None], places[:, None, :]]
    if not bool(real.all()):
        system.mul_(real[:, :, None]).mul_(real[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_(torch.where(real, operands.damping, 1.0))
    factor, fault = torch.linalg.cholesky_ex(system)
    if bool(fault.any()):
        row = int(batch.rows[int(fault.argmax()), 0])
        advice = "calibrate with more samples, or damp more"
        raise UpdateError(f"gram is not positive definite on the support of a row; {advice}", operands.name, row)
    spread = places[:, None, :].expand(-1, each, -1)  # [supports, each, kept]
    right_side = correlation.view(supports, each, -1).gather(2, spread) * real[:, None, :]
    solution = torch.cholesky_solve(right_side.mT, factor).mT * real[:, None, :]
    return torch.zeros_like(correlation).view(supports, each, -1).scatter_(2, spread, solution).view_as(correlation)
