"""HTML representation of a solution for notebooks: a table of numbers and the upper left corner of the mask."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from masksmith.patterns import TileSpec

CORNER, CELL = 32, 5


def table(rows: Mapping[str, str], picture: str) -> str:
    """Return a small table beside a picture, as HTML without scripts, style sheets or external addresses."""
    body = "".join(
        f"<tr><th align='left'>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items()
    )
    return f"<table><tr><td><table>{body}</table></td><td>{picture}</td></tr></table>"


def picture(mask: Any, tile: TileSpec | None) -> str:
    """Draw the corner of a mask as SVG: kept entries are filled, with lines between tiles (or a frame)."""
    corner = _corner(mask)
    height, width = corner.shape
    kept = "".join(f"M{j * CELL} {i * CELL}h{CELL}v{CELL}h-{CELL}z" for i, j in np.argwhere(corner))
    return (
        f"<svg role='img' aria-label='upper left corner of the mask' width='{width * CELL + 1}' "
        f"height='{height * CELL + 1}'><path d='{kept}' fill='currentColor' opacity='.75'/>"
        f"<path d='{_lines(tile, height, width)}' stroke='currentColor' opacity='.35'/></svg>"
    )


def _corner(mask: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    part = mask[:CORNER, :CORNER]
    array = np.asarray(part.cpu() if hasattr(part, "cpu") else part)
    return array.reshape(array.shape[0], -1)[:, :CORNER]


def _lines(tile: TileSpec | None, height: int, width: int) -> str:
    if tile is None:
        return f"M0 0h{width * CELL}v{height * CELL}h-{width * CELL}z"
    across = "".join(f"M0 {i * CELL}h{width * CELL}" for i in range(0, height + 1, tile.rows))
    return across + "".join(f"M{j * CELL} 0v{height * CELL}" for j in range(0, width + 1, tile.cols))
