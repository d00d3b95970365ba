"""Strips of rows: conjugate gradients for all rows of a strip together, and a check of the solutions in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .conjugate_gradients import System, solve
from .operands import Operands

Tensor = torch.Tensor

ITERATION_LIMIT = 300
"""Maximum number of iterations; `reconstruct` factorises the rows that have not converged by then."""
ITERATION_SHARE = 0.75
"""Share of the tolerance that the iterations may use; the rest is for rounding errors."""
STRIP_ENTRIES, STRIP_ENTRIES_ON_DEVICE = 2**20, 2**26
"""Maximum number of entries of a strip, on the CPU and on other devices: large enough for fast products, small enough
for memory, where eight arrays of this size are kept."""


@dataclass(frozen=True)
class ScaledSystem:
    """The damped Gram matrix, scaled to a unit diagonal.

    Attributes:
        system: The scaled matrix, in the dtype of the iterations.
        scale: Square roots of the damped Gram matrix's diagonal, `[inputs]`, float64.
    """

    system: System
    scale: Tensor

    @classmethod
    def of(cls, operands: Operands) -> ScaledSystem:
        """Scale the damped Gram matrix of operands; the damping must be positive."""
        dtype = torch.float64 if operands.weight.dtype is torch.float64 else torch.float32
        return cls(*System.damped(operands.gram, operands.diagonal_damping, dtype))


@dataclass(frozen=True)
class Strip:
    """Some rows of a layer; all attributes but `rows` are `[rows, inputs]`.

    Attributes:
        rows: Numbers of the rows in the layer.
        kept: The mask, bool.
        dense: Original weights, float64.
        dropped: Weights that the mask drops, 0 elsewhere, float64.
        correlation: `dropped @ gram`, float64.
    """

    rows: Tensor
    kept: Tensor
    dense: Tensor
    dropped: Tensor
    correlation: Tensor

    @classmethod
    def of(cls, operands: Operands, mask: Tensor, rows: Tensor) -> Strip:
        """Select rows of a layer."""
        dense, kept = operands.weight[rows].double(), mask[rows]
        dropped = dense.masked_fill(kept, 0)
        return cls(rows, kept, dense, dropped, dropped @ operands.gram)

    @property
    def masked(self) -> Tensor:
        """The weights that the mask keeps, 0 elsewhere."""
        return self.dense - self.dropped


def rows_at_once(mask: Tensor) -> int:
    """Return the maximum number of rows of a strip, at least 1, for a mask `[out, inputs]`."""
    entries = STRIP_ENTRIES if mask.device.type == "cpu" else STRIP_ENTRIES_ON_DEVICE
    return max(1, entries // mask.shape[1])


def converge(
    strip: Strip, operands: Operands, scaled: ScaledSystem, tolerance: float, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Reconstruct rows by conjugate gradients, and check in float64 which of them are within the tolerance.

    The iterations may use `ITERATION_SHARE` of the tolerance; the rest is for rounding errors. If the residual of the
    recurrence and the residual computed in float64 differ by a vector `e`, the error in the energy norm exceeds the
    bound of the iterations by at most `||e|| / sqrt(smallest eigenvalue)`.

    Each row is iterated in a unit of its own, a power of two near its largest entry on the right side, so that squares
    neither underflow nor overflow in float32, whatever the magnitude of the weights.

    Args:
        strip: The rows.
        operands: Gram matrix and damping.
        scaled: The system to solve.
        tolerance: Largest share by which a row's objective may exceed its minimum.
        start: Weights `[out, inputs]` to start from, or None for the masked ones.

    Returns:
        Updated weights, float64; `(dense - updated) G`; bool `[rows]`, whether the row's objective is proved to be
        within the tolerance; number of iterations.
    """
    system, scale = scaled.system, scaled.scale
    supports, dtype = strip.kept.to(system.matrix.dtype), system.matrix.dtype
    right_side = strip.correlation / scale * strip.kept
    unit = _powers_of_two(right_side)[:, None]
    masked, initial = strip.masked, None
    if start is not None:
        initial = ((start[strip.rows].double() - masked) * scale / unit).to(dtype) * supports
    masked_objective = ((strip.dropped / unit) * (strip.correlation / unit)).sum(1)
    right_side = (right_side / unit).to(dtype)
    iterates = solve(
        system, supports, right_side, masked_objective, ITERATION_SHARE * tolerance, ITERATION_LIMIT, initial
    )
    updated = masked + iterates.solution.double() * unit / scale
    if operands.weight.dtype is not torch.float64:
        updated = updated.float().double()  # rounded to float32: the check below is of the values that are returned
    change, shift = strip.dense - updated, (updated - masked) / unit
    product = change @ operands.gram
    objective = (change / unit * (product / unit)).sum(1) + operands.diagonal_damping * shift.square().sum(1)
    residual = (product / unit - operands.diagonal_damping * shift) / scale * strip.kept
    rounding = torch.linalg.vector_norm(residual - iterates.residual, dim=1) / system.eigenvalue_bound**0.5
    distance = (iterates.bound.sqrt() + rounding).square()
    return updated, product, distance <= tolerance * (objective - distance), iterates.iterations


def _powers_of_two(values: Tensor) -> Tensor:
    """Return, for each row, the smallest power of two that exceeds its absolute entries; 1 for a row of zeros."""
    largest = values.abs().amax(1)
    mantissa = torch.frexp(largest).mantissa
    # The quotient is exact, and has the range of float64 in every version of torch.
    return torch.where(largest == 0, 1.0, largest / mantissa)
