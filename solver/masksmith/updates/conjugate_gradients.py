"""Conjugate gradients for many rows at once, each restricted to its own support, with a bound on the distance to go.

An iteration is one matrix product for all rows. The bound is the Gauss-Radau upper bound of the error in the energy
norm, after Meurant and Tichy, "Approximating the extreme Ritz values and upper bounds for the A-norm of the error in
CG" (Numerical Algorithms, 2019): `||x - x_k||_A^2 <= g_k ||r_k||^2`, with `g_0 = 1 / mu` for any `mu` not above the
smallest eigenvalue, and `g_k+1 = (g_k - a_k) / (mu (g_k - a_k) + b_k+1)` with the method's own step lengths `a`
and ratios `b`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor

COMPACTED_BELOW = 0.8
"""Share of unfinished rows below which the finished ones are removed from the products."""
SMALLEST_OF_FLOAT32 = 1e-4
"""Smallest eigenvalue, of a matrix with a unit diagonal, at which float32 leaves enough digits."""
MARGIN = 0.9
"""Factor of a bound that a factorisation in the system's own dtype confirmed: its rounding is not counted."""


BAND_ENTRIES = 2**22
"""Entries of the Gram matrix that are scaled at a time."""


@dataclass(frozen=True)
class System:
    """A positive definite matrix with a unit diagonal, and what is known of its eigenvalues.

    Attributes:
        matrix: `[inputs, inputs]`, symmetric.
        smallest: A positive number that is at most the smallest eigenvalue.
    """

    matrix: Tensor
    smallest: float

    @classmethod
    def damped(cls, gram: Tensor, damping: float, dtype: torch.dtype) -> tuple[System, Tensor]:
        """Scale `gram + damping I` to a unit diagonal; return the system, and the scale of the inputs, float64.

        Args:
            gram: `[inputs, inputs]`, float64, positive semidefinite.
            damping: Positive.
            dtype: Of the system; float64 is used instead where the smallest eigenvalue is too small for float32.
        """
        scale = (gram.diagonal() + damping).sqrt()
        certain = damping / float(scale.max()) ** 2
        tried = damping / float(scale.square().mean())
        while True:
            system = _scaled(gram, damping, scale, dtype if tried >= SMALLEST_OF_FLOAT32 else torch.float64)
            if tried <= certain:
                return cls(system, certain), scale
            if _is_positive_definite(system, tried):
                return cls(system, MARGIN * tried), scale
            tried /= 4


def _scaled(gram: Tensor, damping: float, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale `gram + damping I`, a band of rows at a time, so that it is not in memory in float64 once more."""
    system = torch.empty_like(gram, dtype=dtype)
    step = max(1, BAND_ENTRIES // len(gram))
    for first in range(0, len(gram), step):
        band = gram[first : first + step].clone()
        band.diagonal(first).add_(damping)
        band /= scale[first : first + step, None]
        band /= scale[None, :]
        system[first : first + step] = band
    return system


@dataclass(frozen=True)
class Iterates:
    """Solutions of all rows.

    Attributes:
        solution: `[rows, inputs]`, 0 outside the supports.
        residual: `[rows, inputs]`, as the recurrence has it.
        bound: `[rows]`, float64, upper bounds of the squared error in the energy norm, in exact arithmetic.
        iterations: Number of iterations of the slowest row.
    """

    solution: Tensor
    residual: Tensor
    bound: Tensor
    iterations: int


class _Rows:
    """The rows that are still iterated; all attributes have one entry per row."""

    def __init__(self, system: System, supports: Tensor, solution: Tensor, residual: Tensor, objective: Tensor) -> None:
        self.index = torch.arange(len(residual), device=residual.device)
        self.supports, self.solution, self.residual, self.objective = supports, solution, residual, objective
        self.direction = residual.clone()
        self.squared = _dots(residual, residual)
        self.radau = torch.full_like(self.squared, 1 / system.smallest)

    def bound(self) -> Tensor:
        return self.radau * self.squared

    def step(self, system: System) -> None:
        """Do one iteration; rows whose residual is 0 do not move."""
        product = self.direction @ system.matrix
        product *= self.supports
        length = _ratio(self.squared, _dots(self.direction, product))
        factor = length.to(product.dtype)[:, None]
        self.solution.addcmul_(self.direction, factor)
        self.residual.addcmul_(product, factor, value=-1)
        self.objective = self.objective - length * self.squared
        squared = _dots(self.residual, self.residual)
        ratio = _ratio(squared, self.squared)
        torch.addcmul(self.residual, self.direction, ratio.to(product.dtype)[:, None], out=self.direction)
        ahead = (self.radau - length).clamp(min=0)
        self.radau = _ratio(ahead, system.smallest * ahead + ratio)
        self.squared = squared

    def keep(self, chosen: Tensor) -> None:
        for name, values in vars(self).items():
            setattr(self, name, values[chosen])


def solve(
    system: System,
    supports: Tensor,
    right_side: Tensor,
    objective: Tensor,
    tolerance: float,
    limit: int,
    start: Tensor | None = None,
) -> Iterates:
    """Minimise `objective - 2 b x + x A x` for each row over x on its support.

    Args:
        system: The matrix A.
        supports: `[rows, inputs]`, 1 or 0 in the matrix's dtype.
        right_side: b, `[rows, inputs]`, 0 outside the supports.
        objective: `[rows]`, float64, what x = 0 costs.
        tolerance: A row is done when its bound is at most this share of the least it can cost.
        limit: Maximum number of iterations.
        start: x to start from, 0 outside the supports; by default 0.
    """
    if start is None:
        solution, residual = torch.zeros_like(right_side), right_side.clone()
    else:
        solution, residual = start.clone(), right_side - (start @ system.matrix) * supports
        objective = objective - _dots(solution, right_side + residual)
    rows = _Rows(system, supports, solution, residual, objective)
    bound = torch.full_like(objective, torch.inf)
    iteration = 0
    finished = Iterates(solution, residual, bound, 0)
    while True:
        current = rows.bound()
        open_ = current > tolerance * (rows.objective - current)
        count = int(open_.sum())
        last = count == 0 or iteration == limit
        if last or count < COMPACTED_BELOW * len(open_):
            _store(finished, rows, current)
            rows.keep(open_)
        if last:
            return Iterates(finished.solution, finished.residual, bound, iteration)
        rows.step(system)
        iteration += 1


def _store(finished: Iterates, rows: _Rows, bound: Tensor) -> None:
    finished.bound[rows.index] = bound
    if rows.solution is not finished.solution:  # the first rows are iterated in place
        finished.solution[rows.index] = rows.solution
        finished.residual[rows.index] = rows.residual


def _is_positive_definite(matrix: Tensor, shift: float) -> bool:
    """Whether all eigenvalues exceed `shift`, by a Cholesky factorisation; the diagonal is changed meanwhile."""
    before = matrix.diagonal().clone()
    matrix.diagonal().sub_(shift)
    fault = int(torch.linalg.cholesky_ex(matrix)[1])
    matrix.diagonal().copy_(before)
    return fault == 0


def _dots(left: Tensor, right: Tensor) -> Tensor:
    sums: Tensor = torch.linalg.vecdot(left, right)
    return sums.double()


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return the quotient, 0 where both are 0."""
    return above / torch.where(below == 0, 1.0, below)
