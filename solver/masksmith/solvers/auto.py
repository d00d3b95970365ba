"""The default solver: chooses a solver by the pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from masksmith._panels import Panel, PanelAnswer
from masksmith.patterns import DoublePruned, TilePattern, TileSpec

from .base import Parallelism, Solver
from .double_prune import DoublePrune
from .exact import Exact
from .top_k import TopK

WHOLE_TENSOR_VERSION = 1
"""Version of `masksmith.whole_tensor`, increased whenever its masks may change."""


class SolverChoice(NamedTuple):
    """A solver and the reason for its choice, one sentence."""

    solver: Solver
    reason: str


@dataclass(frozen=True)
class Auto:
    """Chooses the solver by the pattern alone, so that every process and shard makes the same choice."""

    name: ClassVar[str] = "auto"
    parallelism: ClassVar[Parallelism] = "threads"

    @property
    def version(self) -> int:
        """Version; changes with the version of any solver that may be chosen, and with `WHOLE_TENSOR_VERSION`."""
        return (WHOLE_TENSOR_VERSION + DoublePrune().version) * 1_000_000 + Exact().version * 1000 + TopK().version

    def select(self, pattern: TilePattern) -> SolverChoice:
        """Return the solver for a pattern, and the reason for the choice."""
        if isinstance(pattern, DoublePruned):
            return SolverChoice(
                DoublePrune(),
                "the pattern prescribes this procedure; 'transposable <=n:m' is the pattern whose optimum bounds it",
            )
        return self._select_for(pattern.tile)

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver chosen for such tiles does not support them; None if it supports them."""
        return self._select_for(tile).solver.refusal(tile, forced=forced)

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel with the solver chosen for such tiles."""
        return self._select_for(panel.tile).solver(panel)

    @staticmethod
    def _select_for(tile: TileSpec) -> SolverChoice:
        if tile.separable:
            return SolverChoice(TopK(), "rows are independent: the largest scores of each group are the optimum")
        return SolverChoice(
            Exact(), "rows and columns both have budgets: the proved optimum takes less time than an approximation"
        )
