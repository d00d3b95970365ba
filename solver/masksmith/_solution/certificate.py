"""The certificate of a mask (objective, upper bound and proof of optimality), and how the mask was computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from masksmith._errors import overflow_error
from masksmith._panels import has_tiles
from masksmith.patterns import Pattern

Doubles = npt.NDArray[np.float64]

FloatOrArray = TypeVar("FloatOrArray", float, Doubles)

ROUND_UP_FACTOR = 1 + 2.0**-40
"""Exceeds 1 by more than the relative rounding error of an objective and of the sums over pieces."""


@dataclass(frozen=True)
class Certificate:
    """Certificate of a mask, per piece (a tile, or another part with its own budget) and for the whole tensor.

    Arrays `[down, across]` have one number per piece; `down` and `across` count rows and columns of pieces.

    Attributes:
        pattern: Pattern of allowed masks.
        objectives: `[down, across]`, score kept by each piece, with the hysteresis bonus; for blocks with another norm
            than l1, the sum of the norms of the kept blocks.
        violations: `[down, across]`; objective + violation is an upper bound for a piece; 0.0 proves the piece optimal.
        total_score: Sum of all scores.
        kept: Number of kept entries.
        edge_score: Sum of the scores of a dense edge, with the hysteresis bonus; part of the objective but of no piece.
        kept_score: Sum of the original scores of the kept entries, without the hysteresis bonus or block norms; None if
            it equals the objective.
        parts: Certificates of the tensor's matrices, if this one was joined from several; else empty.
    """

    pattern: Pattern
    objectives: Doubles
    violations: Doubles
    total_score: float
    kept: int
    edge_score: float = 0.0
    kept_score: float | None = None
    parts: tuple[Certificate, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[Certificate]) -> Certificate:
        """Make the certificate of a tensor from those of its matrices, in order; see `joined_pieces`."""
        scores = [part.kept_score for part in parts]
        return cls(
            parts[0].pattern,
            joined_pieces([part.objectives for part in parts]),
            joined_pieces([part.violations for part in parts]),
            total_score=exact_sum(part.total_score for part in parts),
            kept=sum(part.kept for part in parts),
            edge_score=exact_sum(part.edge_score for part in parts),
            kept_score=None if None in scores else exact_sum(score for score in scores if score is not None),
            parts=tuple(parts),
        )

    @cached_property
    def proved(self) -> bool:
        """Whether the mask is proved optimal."""
        return not self.violations.any()

    @property
    def proved_pieces(self) -> int:
        """Number of pieces that are proved optimal."""
        # Counted only if necessary: there may be millions.
        return self.violations.size - (0 if self.proved else int(np.count_nonzero(self.violations)))

    @cached_property
    def objective(self) -> float:
        """Sum of `objectives` and `edge_score`."""
        return self._sum(self.objectives) + self.edge_score

    @cached_property
    def upper_bound(self) -> float:
        """Upper bound on the objective of any allowed mask.

        It is `objective` if the mask is proved optimal, else the sum of `objective` and `violations`, rounded up by
        more than the rounding errors of all sums.
        """
        return self.objective if self.proved else _rounded_up(self.objective + self._sum(self.violations))

    @property
    def unshifted_objective(self) -> float:
        """Sum of the original scores of the kept entries, without the hysteresis bonus or block norms."""
        return self.objective if self.kept_score is None else self.kept_score

    @cached_property
    def bounds(self) -> Doubles:
        """`[down, across]`, for each piece an upper bound on the score that any allowed mask keeps there."""
        if self.proved:
            return self.objectives
        with np.errstate(over="ignore"):
            return np.where(self.violations > 0, _rounded_up(self.objectives + self.violations), self.objectives)

    def check(self, name: str | None) -> None:
        """Check that no sum overflows.

        Args:
            name: Name of the tensor in the error message.

        Raises:
            ScoresError: If a sum overflows float64.
        """
        if not all(map(math.isfinite, (self.upper_bound, self.total_score, self.unshifted_objective))):
            raise overflow_error(name)

    def _sum(self, values: Doubles) -> float:
        """Sum values of pieces: pairwise for tiles, which may be millions; correctly rounded for other pieces."""
        if not has_tiles(self.pattern):
            return exact_sum(values.flat)
        with np.errstate(over="ignore"):
            return float(values.sum())


@dataclass(frozen=True)
class Run:
    """How a mask was computed.

    Attributes:
        solver: Name of the solver.
        solve_s: Seconds of solving; for tiles that the CPU solves, they are summed over threads.
        threads: Number of threads.
        device: Device that the solver ran on.
        cut_short: Whether the time limit ended the search.
        notes: Further entries of a solution's `stats`.
    """

    solver: str
    solve_s: float
    threads: int = 1
    device: str = "cpu"
    cut_short: bool = False
    notes: tuple[tuple[str, Any], ...] = ()

    def stats(self, certificate: Certificate) -> dict[str, Any]:
        """Return the `stats` of a solution."""
        return {
            "solver": self.solver,
            "tiles": certificate.violations.size,
            "optimal_tiles": certificate.proved_pieces,
            "solve_s": self.solve_s,
            "threads": self.threads,
            "device": self.device,
            **dict(self.notes),
        }


def joined_pieces(arrays: Sequence[Doubles]) -> Doubles:
    """Join arrays `[down, across, ...]` of pieces along `down`.

    If the arrays differ in `across`, each is reshaped to `[down * across, 1, ...]` before. They differ for fused parts
    of unequal size under a pattern along `out`.
    """
    if len({array.shape[1] for array in arrays}) > 1:
        arrays = [array.reshape(-1, 1, *array.shape[2:]) for array in arrays]
    return np.concatenate(arrays)


def _rounded_up(total: FloatOrArray) -> FloatOrArray:
    """Multiply sums by `ROUND_UP_FACTOR`; sums below 2^-1034 may stay equal, but these sums are exact."""
    return total * ROUND_UP_FACTOR


def exact_sum(values: Iterable[float]) -> float:
    """Return the correctly rounded sum of non-negative numbers, or infinity if it overflows float64."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
