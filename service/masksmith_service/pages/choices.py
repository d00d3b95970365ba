"""What the page offers: patterns with what they allow, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from masksmith.patterns import Axis, Pattern, PatternError, Ragged, parse

from .tiles import Drawing, draw


@dataclass(frozen=True)
class Choice:
    """A pattern to choose.

    Attributes:
        text: The pattern as it is written.
        meaning: What it allows.
        drawing: An allowed mask.
        density: Largest share kept.
    """

    text: str
    meaning: str
    drawing: Drawing | None
    density: float


_OFFERED = {
    "2:4": "2 of every 4 along a row. What sparse tensor cores run.",
    "transposable 2:4": "2 of 4 in every row and column of each 4 x 4 tile: holds for W and its transpose.",
    "transposable 8:16": "8 of 16 in every row and column of each 16 x 16 tile: holds for W and its transpose.",
    "transposable <=8:16": "At most 8 of 16, in rows and columns.",
    "16:2:8": "Panels of 16 rows share 4 of their 8 columns; each row keeps 2 of those.",
    "block 32x32 50%": "Half of all 32 x 32 blocks, kept whole.",
    "channels out 50%": "Half of the output channels, kept whole.",
    "25%": "A quarter of all entries, wherever they are.",
}


def offered() -> list[Choice]:
    """List the patterns on the first page."""
    return [_choice(text, meaning, parse(text)) for text, meaning in _OFFERED.items()]


def described(text: str, axis: Axis = "in", ragged: Ragged = "pad") -> Choice:
    """Describe any pattern.

    Raises:
        PatternError: If it is none.
    """
    if len(text) > 100:
        raise PatternError("a pattern has at most 100 characters")
    pattern = parse(text, axis=axis, ragged=ragged)
    return _choice(str(pattern), _OFFERED.get(str(pattern), ""), pattern)


def _choice(text: str, meaning: str, pattern: Pattern) -> Choice:
    return Choice(text, meaning, draw(pattern), pattern.density)
