"""Protocol of solvers, which compute a mask and duals for every tile of a panel, and a base class for solvers."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from masksmith._panels import Panel, PanelAnswer
from masksmith.patterns import TileSpec
from masksmith.patterns.solver_support import tile_refusal

Parallelism = Literal["threads", "processes", "none"]


@runtime_checkable
class Solver(Protocol):
    """A frozen, callable configuration; calls are deterministic: equal panels give bitwise equal results."""

    @property
    def name(self) -> str:
        """Name in job documents and on the command line."""
        ...

    @property
    def version(self) -> int:
        """Version, increased whenever masks may change, so that cached results of older versions are not used."""
        ...

    @property
    def parallelism(self) -> Parallelism:
        """How panels are solved in parallel: threads (if the solver releases the GIL), processes, or none."""
        ...

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support tiles of this size and these budgets, or None if it does.

        Args:
            tile: Size and budgets of the tiles.
            forced: Whether some entries of the tiles are forced.
        """
        ...

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        ...


class RefusesByTile:
    """Base class of solvers: its `refusal` depends on size and budgets of a tile, and not on forced entries.

    The reasons are in `patterns.solver_support`. Subclasses with more reasons, such as forced entries, override
    `refusal`.
    """

    name: ClassVar[str]

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support tiles of this size and these budgets; None if it supports them."""
        return tile_refusal(tile, self.name)
