"""Ridge regressions of all rows with one matrix, for penalties that change every few rounds of ADMM."""

from __future__ import annotations

import torch

Tensor = torch.Tensor

INPUTS_PER_OUTPUT_LIMIT = 3
"""With fewer inputs than this number times the number of outputs, `Ridge` forms the inverse, once per penalty. A round
of ADMM then takes one matrix product instead of two, but the inverse takes `2 inputs^3` operations at each new penalty,
every third round."""


class Ridge:
    """Computes `(T H + offset) (H + penalty I)^-1` from one eigendecomposition of H.

    Attributes:
        smallest_eigenvalue: The smallest eigenvalue of H, as computed in its dtype; 0 if that is negative.
    """

    def __init__(self, matrix: Tensor, target: Tensor) -> None:
        """Decompose H.

        Args:
            matrix: H, `[inputs, inputs]`, symmetric, positive semidefinite.
            target: T, `[out, inputs]`, in the same dtype.
        """
        values, self._vectors = torch.linalg.eigh(matrix)
        self._values = values.clamp(min=0)
        self.smallest_eigenvalue = float(self._values[0])
        self._forms_inverse = matrix.shape[0] < INPUTS_PER_OUTPUT_LIMIT * target.shape[0]
        # `T H`; in the basis of the eigenvectors unless the inverse is formed.
        self._product = target @ matrix
        if not self._forms_inverse:
            self._product = self._product @ self._vectors
        # Penalties are positive, so the first one replaces these placeholders.
        self._penalty, self._inverse = 0.0, matrix

    def solve(self, offset: Tensor, penalty: float) -> Tensor:
        """Return `(T H + offset) (H + penalty I)^-1` for a positive penalty; `offset` may be overwritten."""
        if self._forms_inverse:
            return offset.add_(self._product) @ self._inverse_for(penalty)
        coefficients = (offset @ self._vectors).add_(self._product).div_(self._values + penalty)
        solution: Tensor = coefficients @ self._vectors.T
        return solution

    def _inverse_for(self, penalty: float) -> Tensor:
        """Return `(H + penalty I)^-1`, which is kept until the penalty changes."""
        if penalty != self._penalty:
            self._penalty, self._inverse = penalty, (self._vectors / (self._values + penalty)) @ self._vectors.T
        return self._inverse
