"""What is known of a mask once it has been checked, and the sums that prove it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._errors import sums_overflow
from masksmith._panels import has_tiles
from masksmith.patterns import Pattern

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """The numbers of a mask: per piece (a tile, or what else has a budget of its own), and of the whole tensor.

    Attributes:
        pattern: What is allowed.
        objectives: `[down, across]`, score kept by each piece.
        violations: `[down, across]`, how much more any mask of the piece could keep at most; 0.0 proves it.
        total_score: Sum of all scores.
        kept: Number of kept entries.
        edge_score: Scores of a dense edge, which is no part of a piece but of the objective.
        kept_score: Score kept of the scores as given; None where that is the objective.
    """

    pattern: Pattern
    objectives: Doubles
    violations: Doubles
    total_score: float
    kept: int
    edge_score: float = 0.0
    kept_score: float | None = None

    @classmethod
    def joined(cls, parts: Sequence[Certificate]) -> Certificate:
        """Make the certificate of a tensor from those of its matrices, whose pieces follow each other downwards."""
        scores = [part.kept_score for part in parts]
        return cls(
            parts[0].pattern,
            np.concatenate([part.objectives for part in parts]),
            np.concatenate([part.violations for part in parts]),
            total_score=exact_sum(part.total_score for part in parts),
            kept=sum(part.kept for part in parts),
            edge_score=exact_sum(part.edge_score for part in parts),
            kept_score=None if None in scores else exact_sum(score for score in scores if score is not None),
        )

    @cached_property
    def proved(self) -> bool:
        """Whether no allowed mask keeps more."""
        return not self.violations.any()

    @property
    def proved_pieces(self) -> int:
        """How many pieces hold a proved optimum."""
        return self.violations.size - (0 if self.proved else int(np.count_nonzero(self.violations)))

    @cached_property
    def objective(self) -> float:
        """Score kept."""
        return self._sum(self.objectives) + self.edge_score

    @cached_property
    def upper_bound(self) -> float:
        """What no allowed mask exceeds: the objective itself, or rounded up."""
        if self.proved:
            return self.objective
        return float(np.nextafter(self.objective + self._sum(self.violations), math.inf))

    @property
    def unshifted_objective(self) -> float:
        """Score kept of the scores as given."""
        return self.objective if self.kept_score is None else self.kept_score

    @cached_property
    def bounds(self) -> Doubles:
        """`[down, across]`, what no mask of the piece exceeds."""
        if self.proved:
            return self.objectives
        with np.errstate(over="ignore"):
            return self.objectives + self.violations

    def check(self, name: str | None) -> None:
        """Refuse sums that float64 does not hold.

        Raises:
            ScoresError: Naming the tensor.
        """
        if not all(map(math.isfinite, (self.upper_bound, self.total_score, self.unshifted_objective))):
            raise sums_overflow(name)

    def _sum(self, values: Doubles) -> float:
        """Add up: tiles, which may be millions, pairwise; the few pieces of other patterns with one rounding."""
        if not has_tiles(self.pattern):
            return exact_sum(values.flat)
        with np.errstate(over="ignore"):
            return float(values.sum())


@dataclass(frozen=True)
class Run:
    """How a mask came about.

    Attributes:
        solver: Name of what ran.
        solve_s: Seconds it took, added over threads.
        threads: Pieces solved side by side.
        device: Where it ran.
        cut_short: Whether the time limit ended a search.
        notes: Further entries of a solution's `stats`.
    """

    solver: str
    solve_s: float
    threads: int = 1
    device: str = "cpu"
    cut_short: bool = False
    notes: tuple[tuple[str, Any], ...] = ()

    def stats(self, certificate: Certificate) -> dict[str, Any]:
        """Give what a solution says of its run."""
        return {
            "solver": self.solver,
            "tiles": certificate.violations.size,
            "optimal_tiles": certificate.proved_pieces,
            "solve_s": self.solve_s,
            "threads": self.threads,
            "device": self.device,
            **dict(self.notes),
        }


def exact_sum(values: Iterable[float]) -> float:
    """Add non-negative numbers with a single rounding; infinity if float64 does not hold the sum."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
