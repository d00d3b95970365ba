"""Conjugate gradients for many rows at once, each row restricted to its support, with a bound on the error.

An iteration is one matrix product for all rows. The bound is the Gauss-Radau upper bound of the error in the energy
norm, after Meurant and Tichy, "Approximating the extreme Ritz values and upper bounds for the A-norm of the error in
CG" (Numerical Algorithms, 2019): `||x - x_k||_A^2 <= g_k ||r_k||^2`, with `g_0 = 1 / mu` for any `mu` not above the
smallest eigenvalue, and `g_k+1 = (g_k - a_k) / (mu (g_k - a_k) + b_k+1)`, where `a_k` are the step lengths of the
method and `b_k+1 = ||r_k+1||^2 / ||r_k||^2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

Tensor = torch.Tensor

COMPACTED_BELOW = 0.8
"""Converged rows are removed from the products when the share of rows that have not converged is below this."""
FLOAT32_MIN_EIGENVALUE = 1e-4
"""If a matrix with a unit diagonal has a smaller eigenvalue, float32 has too few digits for it."""
MARGIN = 0.9
"""Factor below 1 for a bound that a factorisation confirms, because of the factorisation's rounding errors."""
BAND_ENTRIES = 2**22
"""Number of entries of the Gram matrix that are scaled at a time."""


@dataclass(frozen=True)
class System:
    """A positive definite matrix with a unit diagonal, and a lower bound on its eigenvalues.

    Attributes:
        matrix: `[inputs, inputs]`, symmetric.
        eigenvalue_bound: A positive number that is at most the smallest eigenvalue.
    """

    matrix: Tensor
    eigenvalue_bound: float

    @classmethod
    def damped(cls, gram: Tensor, damping: float, dtype: torch.dtype) -> tuple[System, Tensor]:
        """Scale `gram + damping I` to a unit diagonal; return the system, and the scale of the inputs, float64.

        The scale of an input is the square root of its diagonal entry. The bound on the eigenvalues is the first of a
        few descending candidates that a Cholesky factorisation confirms, times `MARGIN`; without one, it is
        `damping / max(scale)^2`, which holds for every Gram matrix.

        Args:
            gram: `[inputs, inputs]`, float64, positive semidefinite.
            damping: Positive.
            dtype: Dtype of the system; float64 is used instead once a candidate is below `FLOAT32_MIN_EIGENVALUE`.
        """
        scale = (gram.diagonal() + damping).sqrt()
        guaranteed_bound = damping / float(scale.max()) ** 2
        candidate = damping / float(scale.square().mean())
        matrix = torch.empty_like(gram, dtype=dtype)
        while True:
            if candidate < FLOAT32_MIN_EIGENVALUE and matrix.dtype != torch.float64:
                matrix = torch.empty_like(gram, dtype=torch.float64)
            _write_scaled(matrix, gram, damping, scale)
            if candidate <= guaranteed_bound:
                return cls(matrix, guaranteed_bound), scale
            # The factor overwrites the matrix, which saves memory; the matrix is then written again.
            if _factorise(matrix, candidate):
                _write_scaled(matrix, gram, damping, scale)
                return cls(matrix, MARGIN * candidate), scale
            candidate /= 4

    def with_eigenvalue(self, eigenvalue: float) -> System:
        """Return the system with a larger lower bound, if a factorisation confirms it.

        Args:
            eigenvalue: The smallest eigenvalue, as computed in the matrix's dtype.
        """
        candidate = MARGIN * eigenvalue  # Less, since rounding errors may make the computed eigenvalue too large.
        if MARGIN * candidate <= self.eigenvalue_bound or not _factorise(self.matrix.clone(), candidate):
            return self
        return replace(self, eigenvalue_bound=MARGIN * candidate)


def _write_scaled(matrix: Tensor, gram: Tensor, damping: float, scale: Tensor) -> None:
    """Write `gram + damping I`, scaled, to `matrix`, in bands of rows, so that no float64 copy of the whole is made."""
    step = max(1, BAND_ENTRIES // len(gram))
    for first in range(0, len(gram), step):
        band = gram[first : first + step].clone()
        band.diagonal(first).add_(damping)
        band /= scale[first : first + step, None]
        band /= scale[None, :]
        matrix[first : first + step] = band


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

    Rows that have converged are among them until they are removed (see `COMPACTED_BELOW`).

    Attributes:
        index: Number of the row in the problem.
        supports: `[rows, inputs]`, 1 or 0.
        solution: `[rows, inputs]`, x.
        residual: `[rows, inputs]`, r.
        direction: `[rows, inputs]`, in which the next step goes.
        objective: Value of the objective at the solution.
        squared_norm: Squared norm of the residual.
        radau: Factor g of the bound (see the module).
    """

    def __init__(self, system: System, supports: Tensor, solution: Tensor, residual: Tensor, objective: Tensor) -> None:
        self.index = torch.arange(len(residual), device=residual.device)
        self.supports, self.solution, self.residual, self.objective = supports, solution, residual, objective
        self.direction = residual.clone()
        self.squared_norm = dots(residual, residual)
        self.radau = torch.full_like(self.squared_norm, 1 / system.eigenvalue_bound)

    def bound(self) -> Tensor:
        """Return upper bounds of the squared errors in the energy norm."""
        return self.radau * self.squared_norm

    def step(self, system: System) -> None:
        """Do one iteration; the solution of a row whose residual is 0 does not change."""
        product = self.direction @ system.matrix
        product *= self.supports
        length = _quotient(self.squared_norm, dots(self.direction, product))
        factor = length.to(product.dtype)[:, None]
        self.solution.addcmul_(self.direction, factor)
        self.residual.addcmul_(product, factor, value=-1)
        self.objective = self.objective - length * self.squared_norm
        squared_norm = dots(self.residual, self.residual)
        ratio = _quotient(squared_norm, self.squared_norm)
        torch.addcmul(self.residual, self.direction, ratio.to(product.dtype)[:, None], out=self.direction)
        difference = (self.radau - length).clamp(min=0)
        self.radau = _quotient(difference, system.eigenvalue_bound * difference + ratio)
        self.squared_norm = squared_norm

    def keep(self, is_chosen: Tensor) -> None:
        """Keep the state of the chosen rows only; `is_chosen` is bool `[rows]`."""
        for name, values in vars(self).items():
            setattr(self, name, values[is_chosen])


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
        system: The matrix A.
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
    result = Iterates(rows.solution, rows.residual, torch.full_like(objective, torch.inf), 0)
    iteration = 0
    while True:
        bound = rows.bound()
        is_active = bound > tolerance * (rows.objective - bound)
        active_rows = int(is_active.sum())
        is_last = active_rows == 0 or iteration == limit
        if is_last or active_rows < COMPACTED_BELOW * len(is_active):
            _store(result, rows, bound)
            rows.keep(is_active)
        if is_last:
            return replace(result, iterations=iteration)
        rows.step(system)
        iteration += 1


def _start(system: System, supports: Tensor, right_side: Tensor, objective: Tensor, start: Tensor | None) -> _Rows:
    """Return the state of all rows at x = `start`, or x = 0; arguments as for `solve`."""
    if start is None:
        return _Rows(system, supports, torch.zeros_like(right_side), right_side.clone(), objective)
    solution, residual = start.clone(), right_side - (start @ system.matrix) * supports
    # At x, with the residual r = b - A x, `x A x - 2 b x` is `-x (b + r)`.
    return _Rows(system, supports, solution, residual, objective - dots(solution, right_side + residual))


def _store(result: Iterates, rows: _Rows, bound: Tensor) -> None:
    """Copy the rows' solutions, residuals and bounds to their places in the result."""
    result.bound[rows.index] = bound
    if rows.solution is not result.solution:  # until rows are removed, both are the same tensor
        result.solution[rows.index] = rows.solution
        result.residual[rows.index] = rows.residual


def _factorise(matrix: Tensor, shift: float) -> bool:
    """Replace a symmetric matrix by the Cholesky factor of `matrix - shift I`; return whether the factor exists.

    It exists if and only if all eigenvalues exceed `shift`, but for rounding.
    """
    matrix.diagonal().sub_(shift)
    failed_column = torch.empty((), dtype=torch.int32, device=matrix.device)
    # LAPACK works on columns: the transpose of a row-major matrix is factorised in place.
    torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, failed_column))
    return int(failed_column) == 0


def dots(left: Tensor, right: Tensor) -> Tensor:
    """Return the scalar product of each row, summed in the operands' dtype, as float64."""
    sums: Tensor = torch.linalg.vecdot(left, right)
    return sums.double()


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient; a denominator of 0 counts as 1, so that 0 / 0 is 0."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)
