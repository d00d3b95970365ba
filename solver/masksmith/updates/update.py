"""Results of updates: weights, mask, and the error of the layer's output; for ADMM also its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masksmith._solution import Solution


@dataclass(frozen=True, eq=False)
class Update:
    """Updated weights of a masked layer, and the squared error of its output on the calibration data.

    The error of weights `V` in place of `W` is `||X V^T - X W^T||^2 = trace((V - W) X^T X (V - W)^T)`, in float64.

    Attributes:
        weight: The updated weights, 0 at dropped entries; shape, dtype, library and device are those of the original.
        mask: Bool, True = kept.
        error: Squared error of the output with the updated weights.
        masked_error: Squared error with the original weights masked by `mask`, and rounded as `weight` is; never less
            than `error`.
        energy: `||X W^T||^2`, the squared norm of the original output.
        stats: Method, damping, tolerance, number of factorisations, iterations of the slowest row, rows that kept their
            masked weights, seconds, device. With ADMM also: the mask solver, numbers of rounds and of masks solved for,
            which mask is returned, whether the mask settled, and seconds of solving for masks.
    """

    weight: Any
    mask: Any
    error: float
    masked_error: float
    energy: float
    stats: Mapping[str, Any] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """`error / energy`; 0 when both are 0, infinite when only `energy` is 0."""
        return ratio(self.error, self.energy, 0.0)

    @property
    def gain(self) -> float:
        """`masked_error / error`, at least 1: the factor by which the update reduces the error.

        1 when both are 0, infinite when only `error` is 0.
        """
        return ratio(self.masked_error, self.error, 1.0)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.stats.get('method')}, relative_error={self.relative_error:.4g}, "
            f"gain={self.gain:.4g})"
        )


@dataclass(frozen=True)
class AdmmRound:
    """One round of ADMM.

    Attributes:
        penalty: Penalty on the difference between free weights and masked copy in this round.
        flips: Number of entries in which the round's mask differs from that of the previous round, or, in the first
            round, from the mask that ADMM starts from.
        distance: Norm of free weights minus masked copy, relative to the weights' norm.
        gap: The gap of the round's mask; 0.0 proves that the mask is optimal for the round's scores.
    """

    penalty: float
    flips: int
    distance: float
    gap: float


@dataclass(frozen=True, eq=False, repr=False)
class AdmmUpdate(Update):
    """The result of ADMM: weights, mask and history.

    Attributes:
        solution: The returned mask with its certificate, for the scores that it was solved for.
        history: All rounds; for a tensor of several matrices, those of the matrix that took the most rounds.
        start_error: Squared error of weights reconstructed on the first mask. If these weights are returned, it is
            equal to `error`. Otherwise it is larger, and may be computed to a tolerance of 20 % and without rounding
            the weights to their dtype.
        start_masked_error: Squared error with the original weights masked by the first mask; exact except for rounding
            errors of float32.
    """

    solution: Solution = field(kw_only=True)
    history: Sequence[AdmmRound] = field(kw_only=True)
    start_error: float = field(kw_only=True)
    start_masked_error: float = field(kw_only=True)

    @property
    def solves(self) -> int:
        """Number of masks solved for; the first one counts unless `start` was passed."""
        return int(self.stats["solves"])


def ratio(numerator: float, denominator: float, if_both_zero: float) -> float:
    """Return the quotient: infinite if only the denominator is 0, `if_both_zero` if both are."""
    if denominator == 0:
        return if_both_zero if numerator == 0 else math.inf
    return numerator / denominator
