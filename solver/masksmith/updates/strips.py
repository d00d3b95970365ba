"""Strips of rows: conjugate gradients for all rows of a strip together, and a check of the solutions in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .conjugate_gradients import dots, solve, squared_norms
from .operands import Operands
from .system import ScaledSystem

Tensor = torch.Tensor

ITERATION_LIMIT = 300
"""Maximum number of iterations; `reconstruct` factorises the rows that have not converged by then."""
ITERATION_SHARE = 0.75
"""Share of the tolerance that the iterations may use; the rest is for rounding errors."""
STRIP_ENTRIES, STRIP_ENTRIES_ON_DEVICE = 2**20, 2**26
"""Maximum number of entries of a strip, on the CPU and on other devices: large enough for fast products, small enough
for memory, where about ten arrays of this size are kept."""


@dataclass(frozen=True)
class Strip:
    """Some rows of a layer; matrices are `[rows, inputs]`.

    Attributes:
        rows: Indices of the rows in the layer.
        kept: The mask, bool.
        dense: Original weights, float64.
        masked: The weights that the mask keeps, 0 elsewhere, float64.
        correlation: `(dense - masked) G`, float64, with the Gram matrix G.
        masked_error: Squared error of the output with the masked weights, `[rows]`, float64.
    """

    rows: Tensor
    kept: Tensor
    dense: Tensor
    masked: Tensor
    correlation: Tensor
    masked_error: Tensor

    @classmethod
    def of(cls, operands: Operands, mask: Tensor, rows: Tensor) -> Strip:
        """Select rows of a layer."""
        dense, kept = operands.weight[rows].double(), mask[rows]
        dropped = kept.logical_not().double().mul_(dense)
        correlation, masked = dropped @ operands.gram, dense - dropped
        return cls(rows, kept, dense, masked, correlation, squared_norms(dropped, correlation, buffer=dropped))


@dataclass(frozen=True)
class Candidates:
    """Updated weights of the rows of a strip, not rounded to the dtype that they are stored in.

    Attributes:
        updated: `[rows, inputs]`, float64.
        error: Squared error of the output, `[rows]`, float64.
        converged: Bool `[rows]`, whether the row's objective is proved to be within the tolerance.
        iterations: Number of iterations of the slowest row.
    """

    updated: Tensor
    error: Tensor
    converged: Tensor
    iterations: int


def rows_at_once(mask: Tensor) -> int:
    """Return the maximum number of rows of a strip, at least 1, for a mask `[out, inputs]`."""
    entries = STRIP_ENTRIES if mask.device.type == "cpu" else STRIP_ENTRIES_ON_DEVICE
    return max(1, entries // mask.shape[1])


def converge(
    strip: Strip, operands: Operands, scaled: ScaledSystem, tolerance: float, start: Tensor | None
) -> Candidates:
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
    """
    system, scale, damping = scaled.system, scaled.scale, operands.diagonal_damping
    supports, dtype = strip.kept.to(system.matrix.dtype), system.matrix.dtype
    right_side = (strip.correlation / scale).mul_(supports)
    unit = _powers_of_two(right_side)
    right_side, initial = right_side.div_(unit[:, None]).to(dtype), None
    if start is not None:
        shift = start[strip.rows].double().sub_(strip.masked)
        initial = shift.mul_(scale).div_(unit[:, None]).to(dtype).mul_(supports)
    masked_objective = strip.masked_error / unit / unit
    iterates = solve(
        system, supports, right_side, masked_objective, ITERATION_SHARE * tolerance, ITERATION_LIMIT, initial
    )
    updated = iterates.solution.double().mul_(unit[:, None]).div_(scale).add_(strip.masked)
    if operands.weight.dtype is not torch.float64:
        updated.copy_(updated.float())  # rounded to float32: the check below is of the values that are returned
    change, shift = strip.dense - updated, updated - strip.masked
    product = change @ operands.gram
    error = squared_norms(change, product, buffer=change)
    objective = (error + damping * dots(shift, shift, buffer=change)) / unit / unit
    residual = product.sub_(shift, alpha=damping).div_(scale).mul_(supports).div_(unit[:, None])
    rounding = torch.linalg.vector_norm(residual.sub_(iterates.residual), dim=1) / system.eigenvalue_bound**0.5
    distance = (iterates.bound.sqrt() + rounding).square()
    return Candidates(updated, error, distance <= tolerance * (objective - distance), iterates.iterations)


def _powers_of_two(values: Tensor) -> Tensor:
    """Return, for each row, the smallest power of two that exceeds its absolute entries; 1 for a row of zeros."""
    largest = torch.linalg.vector_norm(values, torch.inf, dim=1)
    mantissa = torch.frexp(largest).mantissa
    # The quotient is exact, and has the range of float64 in every version of torch.
    return torch.where(largest == 0, 1.0, largest / mantissa)
