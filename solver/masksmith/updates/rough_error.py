"""The error that reconstruction reaches on a mask, without the reconstructed weights and their check in float64."""

from __future__ import annotations

import torch

from .conjugate_gradients import dots, solve
from .operands import Operands
from .strips import ITERATION_LIMIT, rows_at_once
from .system import ScaledSystem

Tensor = torch.Tensor


def rough_errors(
    operands: Operands, scaled: ScaledSystem, target: Tensor, mask: Tensor, tolerance: float
) -> tuple[float, float]:
    """Return the squared error of the output after reconstruction, and with the masked weights.

    All rows are iterated by conjugate gradients as in `reconstruct`, but the result is not checked in float64: both
    errors have the rounding errors of the system's dtype. The first error is that of weights within the tolerance.

    Args:
        operands: Weight, Gram matrix G and damping, which must be positive.
        scaled: `ScaledSystem.of(operands)`: its matrix is `(G + damping I)`, scaled on both sides.
        target: The weight times `scaled.scale`, `[out, inputs]`, in the system's dtype. If it is multiplied by a
            factor, the errors are multiplied by the square of the factor.
        mask: Bool `[out, inputs]`.
        tolerance: Largest share by which a row's objective may exceed its minimum. Rows that have not converged after
            `ITERATION_LIMIT` iterations may exceed it by more.
    """
    system, scale, damping = scaled.system, scaled.scale, operands.diagonal_damping
    error = masked_error = 0.0
    for first in range(0, len(mask), rows_at_once(mask)):
        rows, kept = (whole[first : first + rows_at_once(mask)] for whole in (target, mask))
        supports = kept.to(target.dtype)
        dropped = rows.masked_fill(kept, 0) / scale
        product = dropped @ operands.gram  # in float64, without damping, which may be far larger than the Gram matrix
        before = dots(dropped, product, buffer=dropped)
        right_side = product.div_(scale).to(target.dtype).mul_(supports)
        iterates = solve(system, supports, right_side, before, tolerance, ITERATION_LIMIT)
        objective = before - dots(iterates.solution, right_side + iterates.residual)
        shift = iterates.solution / scale
        after = objective - damping * dots(shift, shift, buffer=shift)
        error, masked_error = error + float(after.clamp(min=0).sum()), masked_error + float(before.clamp(min=0).sum())
    return error, masked_error
