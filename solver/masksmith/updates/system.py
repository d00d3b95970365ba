"""The damped Gram matrix, scaled to a unit diagonal, with a preconditioner and a bound on its eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .operands import Operands
from .preconditioner import low_rank_factor

Tensor = torch.Tensor

FLOAT32_MIN_EIGENVALUE = 1e-4
"""If a matrix with a unit diagonal has a smaller eigenvalue, float32 has too few digits for it."""
MARGIN = 0.9
"""Candidates that may be eigenvalues themselves, and bounds that a factorisation has confirmed, are multiplied by this
before they are used, because a factorisation has rounding errors."""
LEAST_CANDIDATE = 0.05
"""Candidates for the bound are not tried below this share of the guaranteed bound (see `System.damped`)."""
BAND_ENTRIES = 2**22
"""Number of entries of the Gram matrix that are scaled at a time."""


@dataclass(frozen=True)
class System:
    """A positive definite matrix A with a unit diagonal, and a preconditioner `M = I + V V^T` for it.

    Attributes:
        matrix: A, `[inputs, inputs]`, symmetric.
        factor: V, `[inputs, columns]`, in the matrix's dtype; with 0 columns, M is the identity.
        eigenvalue_bound: A positive number b for which `A - b M` is positive semidefinite; so b is at most the smallest
            eigenvalue of A and of `M^-1 A`, also if A and M are restricted to a subset of the inputs (a support).
    """

    matrix: Tensor
    factor: Tensor
    eigenvalue_bound: float

    @classmethod
    def damped(cls, gram: Tensor, damping: float, dtype: torch.dtype) -> tuple[System, Tensor]:
        """Scale `gram + damping I` to a unit diagonal; return the system, and the scale of the inputs, float64.

        The scale of an input is the square root of its diagonal entry. The bound on the eigenvalues is the first of a
        few descending candidates that a Cholesky factorisation confirms, times `MARGIN`. The guaranteed bound,
        `damping / max(scale)^2`, holds for every Gram matrix if the preconditioner is the identity. If no candidate
        above `LEAST_CANDIDATE` times the guaranteed bound is confirmed, the system has that bound and the identity.

        Args:
            gram: `[inputs, inputs]`, float64, positive semidefinite.
            damping: Positive.
            dtype: Dtype of the system; float64 is used instead once a candidate is below `FLOAT32_MIN_EIGENVALUE`.
        """
        scale = (gram.diagonal() + damping).sqrt()
        guaranteed_bound = damping / float(scale.max()) ** 2
        candidate = MARGIN * damping / float(scale.square().mean())
        matrix = torch.empty_like(gram, dtype=dtype)
        _write_scaled(matrix, gram, damping, scale)
        factor = low_rank_factor(matrix)
        while candidate > LEAST_CANDIDATE * guaranteed_bound:
            if candidate < FLOAT32_MIN_EIGENVALUE and matrix.dtype != torch.float64:
                matrix, factor = torch.empty_like(gram), factor.double()
                _write_scaled(matrix, gram, damping, scale)
            # The factorisation overwrites the matrix, which saves memory; the matrix is then written again.
            is_confirmed = _is_bound(candidate, matrix, factor)
            _write_scaled(matrix, gram, damping, scale)
            if is_confirmed:
                return cls(matrix, factor, MARGIN * candidate), scale
            candidate /= 4
        return cls(matrix, factor[:, :0], guaranteed_bound), scale

    def with_eigenvalue(self, eigenvalue: float) -> System:
        """Return the system with a larger bound, if a factorisation confirms it.

        Args:
            eigenvalue: The smallest eigenvalue of A, as computed in the matrix's dtype.
        """
        candidate = MARGIN * eigenvalue  # Rounding errors may make the computed eigenvalue too large.
        if MARGIN * candidate <= self.eigenvalue_bound or not _is_bound(candidate, self.matrix.clone(), self.factor):
            return self
        return replace(self, eigenvalue_bound=MARGIN * candidate)


@dataclass(frozen=True)
class ScaledSystem:
    """The system of a layer, and the scale of the layer's inputs.

    Attributes:
        system: The damped Gram matrix, scaled, in the dtype of the iterations.
        scale: Square roots of the damped Gram matrix's diagonal, `[inputs]`, float64.
    """

    system: System
    scale: Tensor

    @classmethod
    def of(cls, operands: Operands) -> ScaledSystem:
        """Scale the damped Gram matrix of operands; the damping must be positive."""
        dtype = torch.float64 if operands.weight.dtype is torch.float64 else torch.float32
        return cls(*System.damped(operands.gram, operands.diagonal_damping, dtype))


def _write_scaled(matrix: Tensor, gram: Tensor, damping: float, scale: Tensor) -> None:
    """Write `gram + damping I`, scaled, to `matrix`, in bands of rows, so that no float64 copy of the whole is made."""
    step = max(1, BAND_ENTRIES // len(gram))
    for first in range(0, len(gram), step):
        band = gram[first : first + step].clone()
        band.diagonal(first).add_(damping)
        band /= scale[first : first + step, None]
        band /= scale[None, :]
        matrix[first : first + step] = band


def _is_bound(candidate: float, matrix: Tensor, factor: Tensor) -> bool:
    """Return whether `A - candidate (I + V V^T)` is positive definite, but for rounding; overwrites the matrix A.

    It is if and only if it has a Cholesky factor.
    """
    matrix.addmm_(factor, factor.T, alpha=-candidate)
    matrix.diagonal().sub_(candidate)
    failed_column = torch.empty((), dtype=torch.int32, device=matrix.device)
    # LAPACK works on columns: the transpose of a row-major matrix is factorised in place.
    torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, failed_column))
    return int(failed_column) == 0
