"""HTML representation of a solution for notebooks: a table of its properties and the upper left corner of the mask."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

CORNER_ENTRIES, CELL_PIXELS = 32, 5
"""Rows and columns of the corner, at most, and the side of the square that is drawn for an entry."""


def table(rows: Mapping[str, str], picture_html: str) -> str:
    """Return a small table, with a picture to the right of it, as HTML without scripts, style sheets or links."""
    body = "".join(
        f"<tr><th align='left'>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items()
    )
    return f"<table><tr><td><table>{body}</table></td><td>{picture_html}</td></tr></table>"


def picture(mask: Any, tile: tuple[int, int] | None) -> str:
    """Draw the upper left corner of a mask as SVG: kept entries are filled.

    Lines separate the tiles, which have `tile` = (rows, columns); without `tile`, there is a frame around the corner.
    All dimensions of the mask after the first are flattened into columns.
    """
    corner, cell = _corner(mask), CELL_PIXELS
    height, width = corner.shape
    squares = "".join(f"M{j * cell} {i * cell}h{cell}v{cell}h-{cell}z" for i, j in np.argwhere(corner))
    return (
        f"<svg role='img' aria-label='upper left corner of the mask' width='{width * cell + 1}' "
        f"height='{height * cell + 1}'><path d='{squares}' fill='currentColor' opacity='.75'/>"
        f"<path d='{_lines(tile, height, width)}' fill='none' stroke='currentColor' opacity='.35'/></svg>"
    )


def _corner(mask: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    part = mask[:CORNER_ENTRIES, :CORNER_ENTRIES]
    array = np.asarray(part.cpu() if hasattr(part, "cpu") else part)
    return array.reshape(array.shape[0], -1)[:, :CORNER_ENTRIES]


def _lines(tile: tuple[int, int] | None, height: int, width: int) -> str:
    cell = CELL_PIXELS
    if tile is None:
        return f"M0 0h{width * cell}v{height * cell}h-{width * cell}z"
    horizontal = "".join(f"M0 {i * cell}h{width * cell}" for i in range(0, height + 1, tile[0]))
    vertical = "".join(f"M{j * cell} 0v{height * cell}" for j in range(0, width + 1, tile[1]))
    return horizontal + vertical
