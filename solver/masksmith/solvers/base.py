"""What every solver is: a frozen configuration that turns a panel into a mask with duals."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from masksmith._panels import Panel, PanelAnswer
from masksmith.patterns import TileSpec
from masksmith.patterns.solver_support import tile_refusal

Parallelism = Literal["threads", "processes", "none"]


@runtime_checkable
class Solver(Protocol):
    """A frozen, callable configuration; calling it is pure: the same panel gives the same bits."""

    @property
    def name(self) -> str:
        """Its name on the wire and the command line."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the masks it finds may change, so that no cache serves an old one."""
        ...

    @property
    def parallelism(self) -> Parallelism:
        """How panels run side by side: threads (the solver releases the GIL), processes, or one after the other."""
        ...

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Say why it cannot solve such tiles, or None when it can."""
        ...

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        ...


class RefusingBySize:
    """Refuses by the size and budgets of tiles alone, as `solver_support` says of the solver's name."""

    name: ClassVar[str]

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Refuse tiles that are not the solver's."""
        return tile_refusal(tile, self.name)
