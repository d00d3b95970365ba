"""Block patterns: computes the value of every block, selects blocks within the budgets, and writes the mask."""

from __future__ import annotations

import numpy as np

from masksmith._errors import ScoresError
from masksmith._panels import Bools, Duals, Matrix
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith._tensors import MatrixReader, View
from masksmith.patterns import Block, Grid

from .block_flow import best_both
from .conclusion import conclude
from .reader import PanelReader, PlanOptions
from .units import KeptUnits, best_of_all, best_of_rows
from .violations import losses


def solve_blocks(problem: Problem, pattern: Block, options: PlanOptions) -> Solution:
    """Keep the blocks with the largest values.

    The first pass computes the values of blocks, the second writes the mask; memory is bounded by a row of blocks. The
    objective is the sum of the blocks' values in float64. One piece (`tile_objectives`) is a part with its own budget:
    a block row, a block column, or the tensor.
    """
    reader, nested_mask = PanelReader(problem, options, pattern.rows), _NestedMask(options.nested, problem.options.view)
    values = _all_values(reader, pattern, nested_mask)
    selection = _choose(values, pattern, problem.grid)
    kept_score, edge_score, kept = _write(reader, pattern, selection.mask, nested_mask)
    objectives = _pieces(np.where(selection.mask, values, 0.0), pattern)
    violations = _pieces(losses(values, selection.mask, selection.u, selection.v), pattern)
    violations[0, 0] += nested_mask.violation
    sums_entries = pattern.norm == "l1"
    certificate = Certificate(
        pattern,
        objectives,
        violations,
        total_score=reader.total,
        kept=kept,
        edge_score=edge_score if sums_entries else 0.0,
        kept_score=None if sums_entries else kept_score,
    )
    return conclude(reader, certificate, selection.solver)


def block_values(problem: Problem, pattern: Block, nested: Solution | None) -> Duals:
    """Return the value of every block, `[block rows, block columns]`; `solve_blocks` maximises their sum.

    Args:
        problem: The tensor, or whole block rows of it.
        pattern: The pattern.
        nested: The solution of the nested pattern, or None.

    Raises:
        ScoresError: If a score is invalid, or a norm overflows.
    """
    return _all_values(PanelReader(problem, PlanOptions(), pattern.rows), pattern, _NestedMask(nested))


def _all_values(reader: PanelReader, pattern: Block, nested_mask: _NestedMask) -> Duals:
    grid, name = reader.problem.grid, reader.problem.name
    values = np.concatenate([_values(nested_mask.scores(*panel), pattern, grid) for panel in reader.checked()])
    assert values.shape == pattern.blocks(grid)
    if not np.isfinite(values).all():
        raise ScoresError(f"the {pattern.norm} norm of a block overflows; scale the scores down", name=name)
    return values


class _NestedMask:
    """The mask of the nested pattern; without one, all entries of kept blocks are kept.

    Attributes:
        violation: Upper bound minus objective of the nested solution.
    """

    def __init__(self, nested: Solution | None, view: View = "channels-last") -> None:
        self._mask = None if nested is None else MatrixReader(nested.mask, "in", "mask", view)
        self.violation = 0.0 if nested is None else nested.upper_bound - nested.objective

    def scores(self, first: int, rows: Matrix) -> Matrix:
        """Return a panel's scores, with 0 where the nested mask drops."""
        return rows if self._mask is None else rows * (self._mask.rows(first, first + len(rows)) != 0)

    def limit(self, first: int, mask: Bools) -> None:
        """Remove entries that the nested mask drops from a mask of whole blocks, in place."""
        if self._mask is not None:
            mask &= self._mask.rows(first, first + len(mask))[:, : mask.shape[1]] != 0


def _values(rows: Matrix, pattern: Block, grid: Grid) -> Duals:
    """Return the value of every block in a panel: `[block rows, block columns]`."""
    if pattern.ragged == "dense":
        rows = rows[: len(rows) // pattern.rows * pattern.rows, : grid.cols // pattern.cols * pattern.cols]
    if not rows.size:
        return np.zeros((0, grid.cols // pattern.cols))
    tops, lefts = np.arange(0, rows.shape[0], pattern.rows), np.arange(0, rows.shape[1], pattern.cols)
    values = rows.astype(np.float64)
    if pattern.norm == "max":
        return np.asarray(np.maximum.reduceat(np.maximum.reduceat(values, lefts, axis=1), tops, axis=0))
    with np.errstate(over="ignore"):
        values = values * values if pattern.norm == "l2" else values
        sums: Duals = np.add.reduceat(np.add.reduceat(values, lefts, axis=1), tops, axis=0)
    if pattern.norm == "mean":
        sums /= np.outer(np.diff(tops, append=rows.shape[0]), np.diff(lefts, append=rows.shape[1]))
    return np.sqrt(sums) if pattern.norm == "l2" else sums


def _choose(values: Duals, pattern: Block, grid: Grid) -> KeptUnits:
    by_row, by_col, total = pattern.budgets(grid)
    if by_row is not None and by_col is not None:
        return best_both(values, by_row, by_col)
    if by_row is not None:
        return best_of_rows(values, by_row)
    if by_col is not None:
        return best_of_rows(values.T, by_col).transposed()
    return best_of_all(values, total)


def _pieces(values: Duals, pattern: Block) -> Duals:
    axis = {"rows": 1, "cols": 0}.get(pattern.balance)
    with np.errstate(over="ignore"):
        return np.asarray(values.sum(axis=axis, keepdims=True))


def _write(reader: PanelReader, pattern: Block, blocks: Bools, nested_mask: _NestedMask) -> tuple[float, float, int]:
    """Write the mask; return the score kept (with a dense edge), the score of the dense edge, and the entries kept."""
    width, height = blocks.shape[1] * pattern.cols, blocks.shape[0] * pattern.rows
    scores, edges, kept = [], [], 0
    for first, rows in reader.again():
        mask = np.ones(rows.shape, np.bool_)
        last = min(first + len(rows), height)
        kept_rows = np.repeat(blocks[first // pattern.rows : -(-last // pattern.rows)], pattern.rows, axis=0)
        inside = max(0, min(len(kept_rows), len(rows)))  # rows of this panel that lie in whole blocks
        mask[:inside, :width] = np.repeat(kept_rows, pattern.cols, axis=1)[:inside, : rows.shape[1]]
        nested_mask.limit(first, mask[:inside, :width])
        scores.append(float((rows * mask).sum(dtype=np.float64)))
        edges.append(float(rows[inside:].sum(dtype=np.float64) + rows[:inside, width:].sum(dtype=np.float64)))
        kept += int(np.count_nonzero(mask))
        reader.writer.write(first, mask)
    return exact_sum(scores), exact_sum(edges), kept
