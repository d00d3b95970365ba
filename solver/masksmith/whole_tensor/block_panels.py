"""Functions of the solvers of block and hybrid patterns: mask inside blocks, sums of blocks, writing of the mask.

The dense edge, with `ragged="dense"`, is the part of the matrix below and right of the last whole blocks; a mask keeps
all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals
from masksmith._solution import Solution, Status
from masksmith._solution.certificate import exact_sum
from masksmith._tensors import MatrixReader, View
from masksmith.patterns import Block, Grid, Hybrid

from .passes import TensorPasses

BlockPattern = Block | Hybrid


class InnerMask:
    """The mask of the n:m pattern inside blocks, solved for the whole matrix, if blocks have such a pattern.

    Attributes:
        violation: Upper bound minus objective of its solution.
        cut_short: Whether the time limit ended the search for this mask.
    """

    def __init__(self, solution: Solution | None, view: View = "channels-last") -> None:
        self._mask = None if solution is None else MatrixReader(solution.mask, "in", "mask", view)
        self._certificate = None if solution is None else solution._certificate
        self.violation = 0.0 if solution is None else solution.upper_bound - solution.objective
        self.cut_short = solution is not None and solution.status is Status.TIME_LIMIT

    @property
    def exists(self) -> bool:
        """Whether blocks have an inner pattern."""
        return self._mask is not None

    def rows(self, first: int, last: int) -> Bools:
        """Return rows of the mask, which must exist."""
        assert self._mask is not None
        return np.asarray(self._mask.rows(first, last) != 0)

    def violations(self, pattern: Hybrid, grid: Grid) -> Duals:
        """Return the violations of the tiles of every block, summed: `[block rows, block columns]`.

        A block's inner objective plus its violation bounds what any inner mask keeps of that block.
        """
        assert self._certificate is not None
        down, across = pattern.blocks(grid)
        if self._certificate.proved:
            return np.zeros((down, across))
        tile = pattern.inner.tile
        sums = _sums_of_blocks(self._certificate.violations, pattern.rows // tile.rows, pattern.cols // tile.cols)
        return sums[:down, :across]


@dataclass(frozen=True, slots=True)
class WrittenMask:
    """Sums over a mask that was written.

    Attributes:
        score: Score kept, a dense edge included.
        inside: Score kept without the dense edge.
        edge: Score of the dense edge.
        kept: Entries kept.
    """

    score: float
    inside: float
    edge: float
    kept: int


def without_dense_edge(rows: npt.NDArray[Any], pattern: BlockPattern) -> npt.NDArray[Any]:
    """Return the part of a panel without the dense edge; the panel's first row must be that of a block row."""
    if pattern.ragged != "dense":
        return rows
    height, width = (
        length // side * side for length, side in zip(rows.shape, (pattern.rows, pattern.cols), strict=True)
    )
    return rows[:height, :width]


def block_sums(rows: npt.NDArray[Any], pattern: BlockPattern) -> Duals:
    """Return the sum of every block of a panel in float64: `[block rows, block columns]`."""
    covered = without_dense_edge(rows, pattern)
    if not covered.size:
        return np.zeros((0, rows.shape[1] // pattern.cols))
    return _sums_of_blocks(covered.astype(np.float64), pattern.rows, pattern.cols)


def _sums_of_blocks(values: Duals, height: int, width: int) -> Duals:
    tops, lefts = np.arange(0, values.shape[0], height), np.arange(0, values.shape[1], width)
    return np.asarray(np.add.reduceat(np.add.reduceat(values, lefts, axis=1), tops, axis=0))


def write_mask(passes: TensorPasses, pattern: BlockPattern, blocks: Bools, inner: InnerMask) -> WrittenMask:
    """Write the mask from the chosen blocks and the inner mask; a dense edge is kept.

    Args:
        passes: Passes over the tensor; their `writer` receives the mask.
        pattern: `Block`: a chosen block keeps what the inner mask keeps, or everything if there is no inner mask; the
            other blocks keep nothing. `Hybrid`: a chosen block keeps everything; the others keep what the inner mask
            keeps.
        blocks: `[block rows, block columns]`, the chosen ones.
        inner: The inner mask.
    """
    scores, insides, edges, kept = [], [], [], 0
    width, height = blocks.shape[1] * pattern.cols, blocks.shape[0] * pattern.rows
    for first, rows in passes.later_pass():
        mask = np.ones(rows.shape, np.bool_)
        last = min(first + len(rows), height)
        chosen_rows = np.repeat(blocks[first // pattern.rows : -(-last // pattern.rows)], pattern.rows, axis=0)
        height_inside = max(0, min(len(chosen_rows), len(rows)))  # rows of this panel above the dense edge
        mask_inside = mask[:height_inside, :width]  # a view: the part without the dense edge
        mask_inside[:] = np.repeat(chosen_rows, pattern.cols, axis=1)[:height_inside, : rows.shape[1]]
        _apply_inner(mask_inside, pattern, inner, first)
        kept_scores = rows * mask
        scores.append(float(kept_scores.sum(dtype=np.float64)))
        insides.append(float(kept_scores[:height_inside, :width].sum(dtype=np.float64)))
        below, right = rows[height_inside:], rows[:height_inside, width:]
        edges.append(float(below.sum(dtype=np.float64) + right.sum(dtype=np.float64)))
        kept += int(np.count_nonzero(mask))
        passes.writer.write(first, mask)
    return WrittenMask(exact_sum(scores), exact_sum(insides), exact_sum(edges), kept)


def _apply_inner(block_mask: Bools, pattern: BlockPattern, inner: InnerMask, first: int) -> None:
    """Combine a mask of chosen blocks, which begins at row `first` of the matrix, with the inner mask, in place."""
    if not inner.exists:
        return
    inner_rows = inner.rows(first, first + len(block_mask))[:, : block_mask.shape[1]]
    if isinstance(pattern, Hybrid):
        block_mask |= inner_rows
    else:
        block_mask &= inner_rows
