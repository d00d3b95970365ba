"""The patterns that the home page offers, with descriptions and drawings, and the drawing of any other pattern."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from masksmith.patterns import Axis, Pattern, PatternError, Ragged, parse

from .mask_drawings import Drawing, draw

CACHED_DRAWINGS = 64
"""Number of drawings that are kept in memory; one has at most 128 x 128 entries."""


@dataclass(frozen=True)
class PatternChoice:
    """A pattern, as the pages show it.

    Attributes:
        text: The pattern's string form.
        meaning: Description of a pattern that the home page offers; empty for one that the user wrote.
        drawing: An example mask; None if patterns of this type are not drawn.
        density: See `Pattern.density`.
    """

    text: str
    meaning: str
    drawing: Drawing | None
    density: float


_MEANINGS = {
    "2:4": "2 of every 4 along a row. The format of sparse tensor cores.",
    "transposable 2:4": "2 of 4 in every row and column of each 4 x 4 tile: holds for W and its transpose.",
    "transposable 8:16": "8 of 16 in every row and column of each 16 x 16 tile: holds for W and its transpose.",
    "transposable <=8:16": "At most 8 of 16, in rows and columns.",
    "16:2:8": "In each rectangle of 16 rows x 8 columns, all rows share 4 columns; each row keeps 2 of those 4.",
    "block 32x32 50%": "Half of all 32 x 32 blocks, kept whole.",
    "hybrid 128x128 2:4 75%": "Three quarters of all 128 x 128 blocks dense, 2:4 in the others: 87.5 % kept.",
    "channels out 50%": "Half of the output channels, kept whole.",
    "25%": "A quarter of all entries, without structure.",
}


def offered_patterns() -> list[PatternChoice]:
    """Return the patterns that the home page offers."""
    return [_choice(text, meaning, parse(text)) for text, meaning in _MEANINGS.items()]


def describe_pattern(text: str, axis: Axis = "in", ragged: Ragged = "pad") -> PatternChoice:
    """Return what the pages show of any pattern; its `meaning` is empty.

    Raises:
        PatternError: If it is invalid or has more than 100 characters.
    """
    if len(text) > 100:
        raise PatternError("a pattern has at most 100 characters")
    pattern = parse(text, axis=axis, ragged=ragged)
    return _choice(str(pattern), "", pattern)


def _choice(text: str, meaning: str, pattern: Pattern) -> PatternChoice:
    return PatternChoice(text, meaning, _draw(str(pattern), pattern.axis, pattern.ragged), pattern.density)


@lru_cache(maxsize=CACHED_DRAWINGS)
def _draw(text: str, axis: Axis, ragged: Ragged) -> Drawing | None:
    return draw(parse(text, axis=axis, ragged=ragged))
