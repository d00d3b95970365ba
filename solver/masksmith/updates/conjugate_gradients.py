"""Preconditioned conjugate gradients for many rows at once, each row restricted to its support, with an error bound.

An iteration is one matrix product for all rows. The bound is the Gauss-Radau upper bound of the error in the energy
norm, after Meurant and Tichy, "Approximating the extreme Ritz values and upper bounds for the A-norm of the error in
CG" (Numerical Algorithms, 2019): `||x - x_k||_A^2 <= g_k r_k M^-1 r_k`. Here A is the matrix of the system, M its
preconditioner, x the solution, `x_k` the iterate and `r_k` the residual after k iterations. `g_0 = 1 / mu` for any `mu`
not above the smallest eigenvalue of `M^-1 A`, and `g_k+1 = (g_k - a_k) / (mu (g_k - a_k) + b_k+1)`, where `a_k` are the
step lengths of the method and `b_k+1 = (r_k+1 M^-1 r_k+1) / (r_k M^-1 r_k)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .preconditioner import precondition, small_inverses
from .system import System

Tensor = torch.Tensor

COMPACTED_BELOW = 0.8
"""Converged rows are removed from the products when the share of rows that have not converged is below this."""


@dataclass(frozen=True)
class Iterates:
    """Solutions of all rows.

    Attributes:
        solution: `[rows, inputs]`, 0 outside the supports.
        residual: `[rows, inputs]`, from the recurrence of the method, with rounding errors.
        bound: `[rows]`, float64, upper bounds of the squared error in the energy norm; they hold in exact arithmetic.
        iterations: Number of iterations of the slowest row.
    """

    solution: Tensor
    residual: Tensor
    bound: Tensor
    iterations: int


class _Rows:
    """State of the rows that are iterated; all attributes have one entry per row.

    Rows that have converged are among them until they are removed (see `COMPACTED_BELOW`), but their results are stored
    when they converge: the result of a row does not depend on the rows that are iterated with it.

    Attributes:
        index: Number of the row in the problem.
        is_stored: Bool, whether the row's result is stored.
        supports: `[rows, inputs]`, 1 or 0.
        inverses: Small matrices of the preconditioner (see `small_inverses`).
        solution: `[rows, inputs]`, x.
        residual: `[rows, inputs]`, r.
        direction: `[rows, inputs]`, in which the next step goes.
        product: `[rows, inputs]`, the last direction times A, restricted to the supports.
        buffer: `[rows, inputs]`, memory for temporary values.
        objective: Value of the objective at the solution.
        squared_norm: `r M^-1 r`, the squared norm of the preconditioned residual.
        radau: Factor g of the bound (see the module).
    """

    def __init__(self, system: System, supports: Tensor, solution: Tensor, residual: Tensor, objective: Tensor) -> None:
        self.index = torch.arange(len(residual), device=residual.device)
        self.is_stored = torch.zeros_like(self.index, dtype=torch.bool)
        self.supports, self.solution, self.residual, self.objective = supports, solution, residual, objective
        self.inverses = small_inverses(system.factor, supports)
        self.direction, self.product, self.buffer = (torch.zeros_like(residual) for _ in range(3))
        coefficients, self.squared_norm = precondition(residual, system.factor, self.inverses)
        self._set_direction(system, coefficients, torch.zeros_like(self.squared_norm))
        self.radau = torch.full_like(self.squared_norm, 1 / system.eigenvalue_bound)

    def bound(self) -> Tensor:
        """Return upper bounds of the squared errors in the energy norm."""
        return self.radau * self.squared_norm

    def step(self, system: System) -> None:
        """Do one iteration; the solution of a row whose residual is 0 does not change."""
        torch.mm(self.direction, system.matrix, out=self.product).mul_(self.supports)
        length = _quotient(self.squared_norm, dots(self.direction, self.product, self.buffer))
        factor = length.to(self.product.dtype)[:, None]
        self.solution.addcmul_(self.direction, factor)
        self.residual.addcmul_(self.product, factor, value=-1)
        self.objective = self.objective - length * self.squared_norm
        coefficients, squared_norm = precondition(self.residual, system.factor, self.inverses)
        ratio = _quotient(squared_norm, self.squared_norm)
        self._set_direction(system, coefficients, ratio)
        difference = (self.radau - length).clamp(min=0)
        self.radau = _quotient(difference, system.eigenvalue_bound * difference + ratio)
        self.squared_norm = squared_norm

    def _set_direction(self, system: System, coefficients: Tensor, ratio: Tensor) -> None:
        """Replace the direction by the preconditioned residual plus `ratio` times the direction."""
        torch.addcmul(self.residual, self.direction, ratio.to(self.direction.dtype)[:, None], out=self.direction)
        low_rank_part = torch.mm(coefficients, system.factor.T, out=self.buffer)
        self.direction.addcmul_(low_rank_part, self.supports, value=-1)

    def keep(self, is_chosen: Tensor) -> None:
        """Keep the state of the chosen rows only; `is_chosen` is bool `[rows]`."""
        count = int(is_chosen.sum())
        for name, values in vars(self).items():
            is_temporary = name in ("product", "buffer")
            setattr(self, name, values[:count] if is_temporary else values[is_chosen])


def solve(
    system: System,
    supports: Tensor,
    right_side: Tensor,
    objective: Tensor,
    tolerance: float,
    limit: int,
    start: Tensor | None = None,
) -> Iterates:
    """Minimise `objective - 2 b x + x A x` for each row, over all x that are 0 outside the row's support.

    Args:
        system: The matrix A, and its preconditioner.
        supports: `[rows, inputs]`, 1 or 0 in the matrix's dtype.
        right_side: b, `[rows, inputs]`, 0 outside the supports.
        objective: `[rows]`, float64, the objective at x = 0.
        tolerance: A row has converged when the bound on its error is at most this share of a lower bound on its
            minimum.
        limit: Maximum number of iterations.
        start: x to start from, 0 outside the supports; by default 0.

    Returns:
        The solutions of all rows, converged or not, with bounds on their errors.
    """
    rows = _start(system, supports, right_side, objective, start)
    result = Iterates(torch.empty_like(right_side), torch.empty_like(right_side), torch.empty_like(objective), 0)
    iteration = 0
    while True:
        bound = rows.bound()
        is_active = ~rows.is_stored & (bound > tolerance * (rows.objective - bound))
        active_count = int(is_active.sum())
        is_last = active_count == 0 or iteration >= limit
        # In the end all other rows are stored, converged or not; before, those that have just converged.
        _store(result, rows, bound, ~rows.is_stored if is_last else ~(rows.is_stored | is_active))
        if is_last:
            return replace(result, iterations=iteration)
        if active_count < COMPACTED_BELOW * len(is_active):
            rows.keep(is_active)
        rows.step(system)
        iteration += 1


def _start(system: System, supports: Tensor, right_side: Tensor, objective: Tensor, start: Tensor | None) -> _Rows:
    """Return the state of all rows at x = `start`, or x = 0; arguments as for `solve`."""
    if start is None:
        return _Rows(system, supports, torch.zeros_like(right_side), right_side.clone(), objective)
    solution, residual = start.clone(), right_side - (start @ system.matrix) * supports
    # At x, with the residual r = b - A x, `x A x - 2 b x` is `-x (b + r)`.
    return _Rows(system, supports, solution, residual, objective - dots(solution, right_side + residual))


def _store(result: Iterates, rows: _Rows, bound: Tensor, is_chosen: Tensor) -> None:
    """Copy solutions, residuals and bounds of the chosen rows to their places in the result."""
    index = rows.index[is_chosen]
    result.bound[index] = bound[is_chosen]
    result.solution[index] = rows.solution[is_chosen]
    result.residual[index] = rows.residual[is_chosen]
    rows.is_stored |= is_chosen


def squared_norms(vectors: Tensor, products: Tensor, buffer: Tensor | None = None) -> Tensor:
    """Return `v A v` of each row v for a positive semidefinite matrix A, from v and `v A`; see `dots`.

    It is never below 0, as the rounding errors of a sum that is nearly 0 may be.
    """
    return dots(vectors, products, buffer).clamp_(min=0)


def dots(left: Tensor, right: Tensor, buffer: Tensor | None = None) -> Tensor:
    """Return the scalar product of each row, summed in the operands' dtype, as float64.

    Args:
        left: `[rows, inputs]`.
        right: The same shape and dtype.
        buffer: Memory of that shape for the products of entries; by default allocated.
    """
    return torch.mul(left, right, out=buffer).sum(1).double()


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient; a denominator of 0 counts as 1, so that 0 / 0 is 0."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)
