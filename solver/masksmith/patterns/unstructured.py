"""Unstructured patterns: any mask that keeps a share of the whole tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .density import check_density, kept_units, to_percent
from .geometry import Grid, matrix_shape
from .pattern import Axis, Ragged


@dataclass(frozen=True)
class Unstructured:
    """A share of the tensor's entries is **kept**, at any position: `"10%"` is 90 % sparse.

    Attributes:
        density: Share kept, in [1e-9, 1]; it is rounded to a whole number of entries, halves up.

    Raises:
        PatternError: If the density is not in [1e-9, 1].
    """

    density: float

    axis: ClassVar[Axis] = "in"
    ragged: ClassVar[Ragged] = "pad"
    shard_rows: ClassVar[None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", check_density(self.density))

    def kept(self, shape: tuple[int, ...]) -> int:
        """Return the number of entries kept of a weight.

        Raises:
            PatternError: If the shape is not that of a weight, or the density rounds to no entry.
        """
        rows, cols = matrix_shape(shape)
        return kept_units(self.density, rows * cols, "entries", self)

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return a grid with the whole weight as its only piece; raises like `kept`."""
        self.kept(shape)
        rows, cols = matrix_shape(shape)
        return Grid(rows, cols, rows, cols)

    def __str__(self) -> str:
        return to_percent(self.density)
