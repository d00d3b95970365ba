"""The result of verifying a pattern without tiles, and the strips of rows in which its mask is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader


@dataclass(frozen=True, slots=True)
class Finding:
    """The violations of a pattern by a mask.

    Attributes:
        message: Description of the first violation; empty if there is none.
        tile: Row and column in `pattern.grid` of the first violation; None if there is none.
        broken: Number of violating pieces (blocks, channels, panels) or budgets.
        tiles: Number of pieces.
    """

    message: str = ""
    tile: tuple[int, int] | None = None
    broken: int = 0
    tiles: int = 1


def strips(mask: MatrixReader, step: int) -> Iterator[tuple[int, Bools]]:
    """Yield a mask's rows, `step` at a time, as pairs of the index of the first row and the bools of the rows."""
    for first in range(0, mask.shape[0], step):
        yield first, mask.rows(first, min(first + step, mask.shape[0])) != 0
