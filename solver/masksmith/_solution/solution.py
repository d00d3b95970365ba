"""The solution: a mask with the proof of how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Duals, has_tiles
from masksmith.patterns import Pattern

from .certificate import Certificate, Run
from .notebook import picture, table


class Status(StrEnum):
    """How good the mask is known to be."""

    OPTIMAL = "optimal"
    """The certified gap is 0.0: no allowed mask keeps more."""
    FEASIBLE = "feasible"
    """The mask is allowed; the gap says how far from the best it can be at most."""
    TIME_LIMIT = "time_limit"
    """The time limit cut the search short; some tiles hold any allowed mask. The gap says how much that can cost."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A mask, and the proof of how good it is.

    Attributes:
        mask: Bool, True = kept; shape, library and device of the scores.
        pattern: What was allowed.
        objective: Score kept, summed in float64 (with `hysteresis`: of the shifted scores, as the bound is; of blocks
            with another norm than l1: the sum of their norms).
        upper_bound: No allowed mask keeps more than this.
        status: Optimal if and only if `gap` is 0.0.
        tile_objectives: `[down, across]`, score kept by each tile; where budgets belong to the whole tensor, one number
            for each budget (`[1, 1]`, or one a block row or block column).
        tile_bounds: `[down, across]`, what no mask of the tile exceeds.
        total_score: Sum of all scores.
        kept: Number of kept entries.
        unshifted_objective: Score kept of the scores as given; differs from `objective` where that counts otherwise.
        stats: What ran: solver, device, threads, seconds, tiles proved optimal.
        duals: Of the rows and columns of each tile, `[down, across, rows]` and `[down, across, cols]`, if asked for.
        pruned: The weight where it is kept, 0 elsewhere, if `solve` was given one.
        packed: With it, the mask as bits, `[.., ceil(last / 8)]` uint8 along the last axis, lowest bit first.
    """

    mask: Any
    pattern: Pattern
    objective: float
    upper_bound: float
    status: Status
    tile_objectives: npt.NDArray[np.float64]
    tile_bounds: npt.NDArray[np.float64]
    total_score: float
    kept: int
    unshifted_objective: float
    stats: Mapping[str, Any] = field(default_factory=dict)
    duals: tuple[Duals, Duals] | None = None
    pruned: Any = None
    packed: Any = None
    _certificate: Certificate | None = field(default=None, repr=False)

    @classmethod
    def from_certificate(
        cls,
        mask: Any,
        certificate: Certificate,
        run: Run,
        *,
        name: str | None = None,
        duals: tuple[Duals, Duals] | None = None,
        pruned: Any = None,
        packed: Any = None,
    ) -> Solution:
        """Make the solution of a checked mask: the one place where objective, bound, status and stats are derived.

        Raises:
            ScoresError: If float64 does not hold the sum of the scores; it names the tensor.
        """
        certificate.check(name)
        unproved = Status.TIME_LIMIT if run.cut_short else Status.FEASIBLE
        return cls(
            mask=mask,
            pattern=certificate.pattern,
            objective=certificate.objective,
            upper_bound=certificate.upper_bound,
            status=Status.OPTIMAL if certificate.proved else unproved,
            tile_objectives=certificate.objectives,
            tile_bounds=certificate.bounds,
            total_score=certificate.total_score,
            kept=certificate.kept,
            unshifted_objective=certificate.unshifted_objective,
            stats=run.stats(certificate),
            duals=duals,
            pruned=pruned,
            packed=packed,
            _certificate=certificate,
        )

    @property
    def gap(self) -> float:
        """`(upper_bound - objective) / upper_bound`, 0 when both are 0: how much better a mask could be at most."""
        return 0.0 if self.upper_bound == 0.0 else (self.upper_bound - self.objective) / self.upper_bound

    @property
    def tile_gaps(self) -> npt.NDArray[np.float64]:
        """`[down, across]`, each tile's own gap."""
        slack = self.tile_bounds - self.tile_objectives
        return np.divide(slack, self.tile_bounds, out=np.zeros_like(slack), where=self.tile_bounds > 0)

    @property
    def retained(self) -> float:
        """Share of the total score that is kept, 1 when there is no score at all."""
        return self.unshifted_objective / self.total_score if self.total_score > 0 else 1.0

    @property
    def density(self) -> float:
        """Share of the entries that are kept."""
        return self.kept / int(np.prod(tuple(self.mask.shape)))

    @property
    def sparsity(self) -> float:
        """Share of the entries that are dropped."""
        return 1.0 - self.density

    def __repr__(self) -> str:
        return (
            f"Solution({self.pattern}, {self.status}, retained={self.retained:.4f}, gap={self.gap:.3g}, "
            f"objective={self.objective:.6g}, solver={self.stats.get('solver')!r})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "pattern": str(self.pattern),
            "status": str(self.status),
            "shape": " x ".join(map(str, self.mask.shape)),
            "kept": f"{self.kept:,} ({self.density:.2%})",
            "score kept": f"{self.retained:.2%}",
            "gap": f"{self.gap:.3g}" if self.gap else "0, proved",
            "solver": f"{self.stats.get('solver', '?')} on {self.stats.get('device', '?')}",
        }
        tile = self.pattern.tile if has_tiles(self.pattern) else None
        return table(rows, picture(self.mask, tile))
