"""A preconditioner for the restrictions of one matrix to many supports: the identity plus a matrix of low rank.

A Gram matrix A of activations has a few eigenvalues far above the others. The preconditioner `M = I + V V^T` has
approximately the same large eigenvalues, up to a common factor, with the same eigenvectors, so that all eigenvalues of
`M^-1 A` lie closer together. It is the randomized Nystrom preconditioner of Frangella, Tropp and Udell (SIAM Journal on
Matrix Analysis and Applications, 2023), with Ritz vectors for the Nystrom approximation. Restricted to a support S, it
is `I + V_S V_S^T`, and its inverse is `I - V_S (I + V_S^T V_S)^-1 V_S^T`, so each support takes one small inverse.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor

INPUTS_PER_COLUMN = 32
"""Number of inputs of the layer for each column of V; chosen by measurement."""
MAX_COLUMNS = 64
"""Maximum number of columns of V: the small inverses of all rows of a strip have to fit in memory."""
OVERSAMPLING = 8
"""Number of random vectors in addition to the columns of V, for the accuracy of its directions."""
MAX_RATIO = 1e4
"""Largest ratio of the eigenvalues of M, which float32 has enough digits for."""
POWER_ITERATIONS = 2
"""Number of products of the matrix with the random vectors."""


def low_rank_factor(matrix: Tensor) -> Tensor:
    """Return V, `[inputs, columns]`, for a symmetric positive definite matrix with a unit diagonal.

    Let `e_i` be the largest eigenvalues of the matrix, `u_i` approximate eigenvectors, and
    `s = max(min_i e_i, max_i e_i / MAX_RATIO)`. Column i is `sqrt(e_i / s - 1) u_i`, or 0 where `e_i < s`. The same
    matrix has the same V: the random vectors are seeded.
    """
    inputs = len(matrix)
    columns = min(MAX_COLUMNS, inputs // INPUTS_PER_COLUMN)
    if columns == 0:
        return matrix.new_zeros(inputs, 0)
    generator = torch.Generator().manual_seed(0)
    # On the CPU, as its generator is, also if torch has another default device.
    shape = (inputs, columns + OVERSAMPLING)
    basis = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(matrix)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis).Q
    eigenvalues, vectors = torch.linalg.eigh(basis.T @ (matrix @ basis))
    eigenvalues, vectors = eigenvalues[-columns:], basis @ vectors[:, -columns:]
    least = eigenvalues[0].clamp(min=float(eigenvalues[-1]) / MAX_RATIO)
    factor: Tensor = vectors * (eigenvalues / least - 1).clamp(min=0).sqrt()
    return factor


def small_inverses(factor: Tensor, supports: Tensor) -> Tensor:
    """Return `(I + V_S^T V_S)^-1` for each row's support S, `[rows, columns, columns]`.

    Args:
        factor: V, `[inputs, columns]`.
        supports: `[rows, inputs]`, 1 or 0 in the factor's dtype.
    """
    columns = factor.shape[1]
    i, j = torch.triu_indices(columns, columns, device=factor.device)
    # Entry (i, j) of a row's V_S^T V_S is the sum over its support of column i of V times column j.
    entries = supports @ (factor.T[i] * factor.T[j]).T
    matrices = factor.new_empty(len(supports), columns, columns)
    matrices[:, i, j] = entries
    matrices[:, j, i] = entries
    matrices.diagonal(dim1=1, dim2=2).add_(1)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrices))


def precondition(residual: Tensor, factor: Tensor, inverses: Tensor) -> tuple[Tensor, Tensor]:
    """Return c, for which `M_S^-1 r = r - V_S c`, and `r M_S^-1 r`, for each row's residual r.

    Args:
        residual: `[rows, inputs]`, 0 outside the supports.
        factor: V, `[inputs, columns]`.
        inverses: `small_inverses(factor, supports)`.

    Returns:
        c, `[rows, columns]`; the squared norms, `[rows]`, float64.
    """
    projected = residual @ factor
    coefficients = torch.bmm(inverses, projected[:, :, None])[:, :, 0]
    squared_norm = torch.linalg.vector_norm(residual, dim=1).double().square()
    return coefficients, squared_norm - (coefficients * projected).sum(1).double()
