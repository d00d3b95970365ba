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
    """Keeps or drops whole channels: those with the largest sums of scores are kept, ties go to the first channel.

    Attributes:
        density: Share of the channels kept; their number is rounded to a whole number, halves up.
        axis: `out` keeps or drops output channels (filters, neurons), which are rows of the matrix; `in` keeps or drops
            input channels, each of which is a column, or in a convolution one column for each entry of the kernel. With
            `view="flat"`, each column of a convolution's matrix counts as a channel of its own.

    Raises:
        PatternError: If the density is not in [1e-9, 1], or the axis is unknown.
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
        """Return the grid of a weight: as many tiles as channels, each as large as a channel.

        The columns of an input channel of a convolution are not adjacent, so they are not those of a tile.

        Raises:
            PatternError: As `kept` does.
        """
        self.kept(shape)  # only for its errors
        rows, cols = matrix_shape(shape)
        return Grid(rows, cols, 1, cols) if self.axis == "out" else Grid(rows, cols, rows, cols // shape[1])

    def __str__(self) -> str:
        return f"channels {self.axis} {to_percent(self.density)}"
