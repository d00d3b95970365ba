"""Verifies a mask against its pattern by counting, independently of every solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import MatrixReader, View, read_tensor
from masksmith.layouts import Layout
from masksmith.patterns import Grid, Pattern, TilePattern
from masksmith.patterns.grammar import read_pattern

from .tiles import broken_tiles
from .whole_tensor import find_violation

BAND_ENTRIES = 2**18
"""Target of the number of entries that are checked at once; at least one tile row is checked, however long."""


@dataclass(frozen=True)
class Verdict:
    """Whether a mask is allowed, and if not, the first violation.

    Attributes:
        ok: Whether the mask is allowed.
        message: One sentence that describes the result.
        tile: First tile that violates the pattern, `(tile row, tile column)`; None if the mask is allowed.
        broken: Number of tiles that violate the pattern.
        tiles: Number of tiles. For patterns without tiles, `tile`, `broken` and `tiles` are about blocks, channels,
            panels or budgets instead; `tile` is `(0, 0)` if a violation has no position.
        matrix: Index of the matrix or fused part that has `tile`. None if the mask is allowed; also None if it was
            checked without a layout, or with one for which `Layout.is_plain` is true.
    """

    ok: bool
    message: str
    tile: tuple[int, int] | None
    broken: int
    tiles: int
    matrix: int | None = None

    def __bool__(self) -> bool:
        return self.ok


def verify(
    mask: Any,
    pattern: Pattern | str,
    *,
    view: View = "channels-last",
    layout: Layout | str | None = None,
    at_most: bool = False,
) -> Verdict:
    """Check that a mask is allowed by a pattern.

    A tile is allowed if its rows and columns keep the numbers of entries that the pattern requires. A tile at a ragged
    edge under `pad` is allowed if some mask of its padding completes it to an allowed tile (see `_verify.tiles`). Under
    `dense`, the edge must be kept entirely. For patterns without tiles, blocks, channels, panels or entries are counted
    (`_verify.whole_tensor`).

    Args:
        mask: Bool (or 0/1) array or tensor in the weight's shape.
        pattern: The pattern, or its string form.
        view: How a convolution becomes a matrix, as in `solve`.
        layout: How the tensor is made of matrices, as in `solve`.
        at_most: Whether fewer entries than the pattern keeps are allowed everywhere, as for the non-zeros of a pruned
            weight; then padding and dense edges require nothing.

    Raises:
        SolverError: If the view is unknown.
        LayoutError: If the layout is malformed or does not fit the shape.
        PatternError: If the pattern is malformed or does not fit the shape.
        ScoresError: If the mask's dtype is not supported, or the mask holds NaN.
    """
    pattern = read_pattern(pattern)
    layout, mask = Layout.of(layout), read_tensor(mask, "mask")
    if layout is None or layout.is_plain(pattern, mask.shape):
        return _verify_matrix(mask, pattern, view, at_most)
    return _verify_matrices(mask, pattern, view, layout, at_most)


def _verify_matrices(mask: Any, pattern: Pattern, view: View, layout: Layout, at_most: bool) -> Verdict:
    ranges = layout.row_ranges(pattern, tuple(mask.shape))
    matrices = [matrix[first:last] for matrix in layout.matrices(mask) for first, last in ranges]
    verdicts = [_verify_matrix(matrix, pattern, view, at_most) for matrix in matrices]
    broken, tiles = sum(verdict.broken for verdict in verdicts), sum(verdict.tiles for verdict in verdicts)
    violating = [number for number, verdict in enumerate(verdicts) if not verdict.ok]
    if not violating:
        return Verdict(True, f"all {tiles} tiles of {len(matrices)} matrices obey {pattern}", None, 0, tiles)
    first_verdict = verdicts[violating[0]]
    message = f"matrix {violating[0]} of {len(matrices)}: {first_verdict.message}"
    return replace(first_verdict, message=message, broken=broken, tiles=tiles, matrix=violating[0])


def _verify_matrix(mask: Any, pattern: Pattern, view: View, at_most: bool) -> Verdict:
    has_tiles = isinstance(pattern, TilePattern)
    reader = MatrixReader(mask, pattern.axis if has_tiles else "in", "mask", view)
    if reader.holds_nan():
        raise ScoresError("a mask holds NaN; expected True and False", name="mask")
    if not isinstance(pattern, TilePattern):
        return _verify_whole_tensor(reader, pattern, at_most)
    grid = pattern.grid(reader.shape)
    count, first_tile = 0, None
    for first, last in _bands(grid):
        broken = broken_tiles(reader.rows(first, last) != 0, pattern, at_most=at_most)
        if first_tile is None and broken.any():
            row, col = np.unravel_index(broken.argmax(), broken.shape)
            first_tile = (first // grid.tile_rows + int(row), int(col))
        count += int(np.count_nonzero(broken))
    if first_tile is None:
        return Verdict(True, f"all {grid.tiles} tiles obey {pattern}", None, 0, grid.tiles)
    message = f"{count} of {grid.tiles} tiles violate {pattern}, the first is tile {list(first_tile)}"
    return Verdict(False, message, first_tile, count, grid.tiles)


def _bands(grid: Grid) -> Iterator[tuple[int, int]]:
    """Divide the rows of a grid into bands of whole tile rows; a ragged tile row at the bottom is a band of its own."""
    step = grid.tile_rows * max(1, BAND_ENTRIES // (grid.tile_rows * max(1, grid.cols)))
    whole_rows = grid.rows // grid.tile_rows * grid.tile_rows
    for first in range(0, whole_rows, step):
        yield first, min(first + step, whole_rows)
    if whole_rows < grid.rows:
        yield whole_rows, grid.rows


def _verify_whole_tensor(mask: MatrixReader, pattern: Pattern, at_most: bool) -> Verdict:
    finding = find_violation(mask, pattern, at_most=at_most)
    message = f"{pattern}: {finding.message}" if finding.message else f"all {finding.tiles} pieces obey {pattern}"
    return Verdict(not finding.message, message, finding.tile, finding.broken, finding.tiles)
