"""What the verifiers of patterns without tiles find, and how they read a mask."""

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
        tile: Position of the first violation in `pattern.grid`.
        broken: Number of violating pieces (blocks, channels, panels) or budgets.
        tiles: Number of pieces.
    """

    message: str = ""
    tile: tuple[int, int] | None = None
    broken: int = 0
    tiles: int = 1


def strips(mask: MatrixReader, step: int) -> Iterator[tuple[int, Bools]]:
    """Yield a mask's rows, `step` at a time, with the first row's number."""
    for first in range(0, mask.shape[0], step):
        yield first, mask.rows(first, min(first + step, mask.shape[0])) != 0
