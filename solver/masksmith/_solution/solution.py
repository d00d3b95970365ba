"""The solution of a solve: a mask with its objective and an upper bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Duals, has_tiles
from masksmith.layouts import Layout
from masksmith.patterns import Pattern

from .certificate import Certificate, Run
from .notebook import picture, table


class Status(StrEnum):
    """What is proved about the mask."""

    OPTIMAL = "optimal"
    """The certified gap is 0.0: no allowed mask has a greater objective."""
    FEASIBLE = "feasible"
    """The mask is allowed; the gap bounds its distance from the optimum."""
    TIME_LIMIT = "time_limit"
    """The mask is allowed, and the time limit ended the search: some tiles may have an arbitrary allowed mask."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A mask with its objective and an upper bound on any mask's objective.

    Attributes:
        mask: Bool, True = kept; shape, library and device of the scores.
        pattern: Pattern of allowed masks.
        objective: Score kept, summed in float64. With `hysteresis`, it includes the bonus; for blocks with another norm
            than l1, it is the sum of the norms of the kept blocks.
        upper_bound: Upper bound on the objective of any allowed mask.
        status: Optimal if and only if `gap` is 0.0.
        tile_objectives: `[down, across]`, score kept by each tile; where budgets belong to the whole tensor, one number
            for each budget (`[1, 1]`, or one number per block row or block column). Several matrices are joined along
            `down`; `[tiles, 1]` if their numbers of tiles across differ.
        tile_bounds: Shaped as `tile_objectives`: upper bound on the objective of any allowed mask of each tile.
        total_score: Sum of all scores.
        kept: Number of kept entries.
        unshifted_objective: Score kept of the original scores, without the hysteresis bonus or block norms.
        stats: Solver, device, threads, seconds, number of tiles and of those proved optimal, and further facts about
            the solve.
        duals: Duals of the rows `[down, across, rows]` and columns `[down, across, cols]` of each tile; None unless
            `solve` had `keep_duals`.
        pruned: The weight with 0 at the dropped entries; None unless `solve` had a weight.
        packed: The mask as bits, `[.., ceil(last / 8)]` uint8 along the last axis, lowest bit first; None if `pruned`
            is None.
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
    # The layout by which the tensor was split into matrices, which were solved and joined again; their tiles need not
    # be rectangles of the tensor. None if the tensor is one plain matrix.
    _layout: Layout | None = field(default=None, repr=False)
    # Whether convolutions were read with `view="flat"`.
    _is_flat: bool = field(default=False, repr=False)

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
        """Build the solution of a certified mask; no other code derives objective, bound, status and stats.

        Raises:
            ScoresError: If a sum of scores overflows float64; the message names the tensor.
        """
        certificate.check(name)
        status_if_unproved = Status.TIME_LIMIT if run.cut_short else Status.FEASIBLE
        return cls(
            mask=mask,
            pattern=certificate.pattern,
            objective=certificate.objective,
            upper_bound=certificate.upper_bound,
            status=Status.OPTIMAL if certificate.proved else status_if_unproved,
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
        """Relative optimality gap, `(upper_bound - objective) / upper_bound`; 0 if `upper_bound` is 0."""
        return 0.0 if self.upper_bound == 0.0 else (self.upper_bound - self.objective) / self.upper_bound

    @property
    def tile_gaps(self) -> npt.NDArray[np.float64]:
        """Shaped as `tile_objectives`: relative optimality gap of each tile; 0 where the bound is 0."""
        slack = self.tile_bounds - self.tile_objectives
        return np.divide(slack, self.tile_bounds, out=np.zeros_like(slack), where=self.tile_bounds > 0)

    @property
    def retained(self) -> float:
        """Share of the total score that is kept; 1 if the total is 0."""
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
        return table(rows, picture(self.mask, self._drawn_tile()))

    def _drawn_tile(self) -> tuple[int, int] | None:
        """Return rows and columns of a tile in the mask as it is stored; None if tiles are not rectangles in it."""
        if not has_tiles(self.pattern) or self._layout is not None or len(self.mask.shape) != 2:
            return None
        tile = self.pattern.tile
        return (tile.cols, tile.rows) if self.pattern.axis == "out" else (tile.rows, tile.cols)
