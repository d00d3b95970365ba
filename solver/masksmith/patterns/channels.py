"""Channel patterns: whole rows or whole columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .checks import check_choice
from .density import check_density, kept_units, to_percent
from .geometry import Grid, matrix_shape
from .pattern import Axis, Ragged


@dataclass(frozen=True)
class Channels:
    """Whole channels kept, those with the largest sums of scores; ties to the first.

    Attributes:
        density: Share of the channels kept, rounded to a whole number, halves up.
        axis: Whose channels: `out` keeps or drops whole rows of the matrix (filters, neurons), `in` whole columns;
            an input channel of a convolution is dropped with its whole kernel.

    Raises:
        PatternError: If the density is not in (0, 1].
    """

    density: float
    axis: Axis = "in"

    ragged: ClassVar[Ragged] = "pad"
    shard_rows: ClassVar[None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", check_density(self.density))
        check_choice("axis", self.axis, ("in", "out"))

    def kept(self, shape: tuple[int, ...]) -> int:
        """Return the number of channels kept of a weight.

        Raises:
            PatternError: If the shape is not that of a weight, or the density rounds to no channel.
        """
        matrix_shape(shape)
        channels = shape[0] if self.axis == "out" else shape[1]
        return kept_units(self.density, channels, f"{self.axis}put channels", self)

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the grid of channels of a weight; raises like `kept`."""
        self.kept(shape)
        rows, cols = matrix_shape(shape)
        return Grid(rows, cols, 1, cols) if self.axis == "out" else Grid(rows, cols, rows, cols // shape[1])

    def __str__(self) -> str:
        return f"channels {self.axis} {to_percent(self.density)}"
