"""Solves block patterns: computes the value of every block, selects blocks within the budgets, and writes the mask."""

from __future__ import annotations

import numpy as np

from masksmith._panels import Duals, Matrix
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith.patterns import Block, Grid

from .block_flow import best_of_rows_and_cols
from .block_panels import InnerMask, block_sums, without_dense_edge, write_mask
from .exact_blocks import with_exact_values
from .passes import TensorPasses, WholeTensorOptions
from .unit_values import Indices, UnitValues
from .units import KeptUnits, best_of_all, best_of_cols, best_of_rows
from .verified_solution import verified_solution

SMALLEST_UNSCALED_NORM = 2.0**-450
"""If the norm of a block is larger, its square is a normal number, which subnormal squares are too small to change."""


def solve_blocks(problem: Problem, pattern: Block, options: WholeTensorOptions) -> Solution:
    """Keep, within the budgets, the blocks with the largest sum of values.

    The first pass computes the values of blocks, the second writes the mask; memory is bounded by a row of blocks, the
    values and the mask. Where rounding errors could change the order of blocks, their scores are read again and summed
    exactly; with budgets of both rows and columns, the flow optimizes the values in float64. The objective is the sum
    of the kept blocks' values in float64. `tile_objectives` has one number per block row if only block rows have
    budgets; one per block column if only block columns have; else one for the tensor.
    """
    passes = TensorPasses(problem, options, pattern.rows)
    inner = InnerMask(options.nested_solution, problem.options.view)
    values = _all_values(passes, pattern, inner)
    selection = _best_blocks(with_exact_values(values, passes, pattern, inner), pattern, problem.grid)
    written = write_mask(passes, pattern, selection.mask, inner)
    objectives = _sum_by_budget(np.where(selection.mask, values, 0.0), pattern)
    violations = selection.violations
    # The inner mask has one violation for the whole tensor: it is added to one entry, so that the sum contains it once.
    violations[0, 0] += inner.violation
    # With another norm than l1, a dense edge has no part in the objective, and the score kept is not the objective.
    is_l1 = pattern.norm == "l1"
    certificate = Certificate(
        pattern,
        objectives,
        violations,
        total_score=passes.total,
        kept=written.kept,
        edge_score=written.edge if is_l1 else 0.0,
        kept_score=None if is_l1 else written.score,
    )
    return verified_solution(passes, certificate, selection.solver, inner.cut_short)


def block_values(problem: Problem, pattern: Block, nested_solution: Solution | None) -> Duals:
    """Return the value of every block, `[block rows, block columns]`; `solve_blocks` keeps the largest sum of values.

    Args:
        problem: The tensor, or whole block rows of it.
        pattern: The pattern.
        nested_solution: The solution of the nested pattern; None without one.

    Raises:
        ScoresError: If a score is invalid.
    """
    return _all_values(TensorPasses(problem, WholeTensorOptions(), pattern.rows), pattern, InnerMask(nested_solution))


def _all_values(passes: TensorPasses, pattern: Block, inner: InnerMask) -> Duals:
    """Return the value of every block of the tensor, from the first pass."""
    grid = passes.problem.grid
    values = np.concatenate([_values(_inner_scores(inner, *panel), pattern, grid) for panel in passes.first_pass()])
    assert values.shape == pattern.blocks(grid)
    return values


def _inner_scores(inner: InnerMask, first: int, rows: Matrix) -> Matrix:
    """Return the scores of a panel, with 0 at the entries that the mask of the nested pattern drops."""
    return rows * inner.rows(first, first + len(rows)) if inner.exists else rows


def _values(rows: Matrix, pattern: Block, grid: Grid) -> Duals:
    """Return the value of every block in a panel: `[block rows, block columns]`."""
    if pattern.norm == "l1":
        return block_sums(rows, pattern)
    rows = without_dense_edge(rows, pattern)
    if not rows.size:
        return np.zeros((0, grid.cols // pattern.cols))
    tops, lefts = np.arange(0, rows.shape[0], pattern.rows), np.arange(0, rows.shape[1], pattern.cols)
    if pattern.norm == "max":
        return _block_peaks(rows.astype(np.float64), tops, lefts)
    if pattern.norm == "mean":
        sizes = np.outer(np.diff(tops, append=rows.shape[0]), np.diff(lefts, append=rows.shape[1]))
        return np.asarray(block_sums(rows, pattern) / sizes)
    return _l2_norms(rows.astype(np.float64), pattern, tops, lefts)


def _block_peaks(rows: Duals, tops: Indices, lefts: Indices) -> Duals:
    """Return the largest score of every block in a panel."""
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(rows, lefts, axis=1), tops, axis=0))


def _l2_norms(rows: Duals, pattern: Block, tops: Indices, lefts: Indices) -> Duals:
    """Return the l2 norm of every block in a panel; blocks are scaled by powers of two where squares leave the range.

    Scaling by a power of two is exact, so blocks that need no scaling get the same norm with it. No norm overflows: the
    l2 norm of a block is at most the sum of its scores.
    """
    with np.errstate(over="ignore"):
        norms = np.sqrt(block_sums(np.square(rows), pattern))
    if norms.min() > SMALLEST_UNSCALED_NORM and np.isfinite(norms).all():
        return norms
    exponents = np.frexp(_block_peaks(rows, tops, lefts))[1]
    by_row = np.repeat(exponents, np.diff(tops, append=rows.shape[0]), axis=0)
    scaled = np.ldexp(rows, -np.repeat(by_row, np.diff(lefts, append=rows.shape[1]), axis=1))
    return np.ldexp(np.sqrt(block_sums(np.square(scaled), pattern)), exponents)


def _best_blocks(values: UnitValues, pattern: Block, grid: Grid) -> KeptUnits:
    by_row, by_col, total = pattern.budgets(grid)
    if by_row is not None and by_col is not None:
        return best_of_rows_and_cols(values.rounded, by_row, by_col)
    if by_row is not None:
        return best_of_rows(values, by_row)
    if by_col is not None:
        return best_of_cols(values, by_col)
    return best_of_all(values, total)


def _sum_by_budget(values: Duals, pattern: Block) -> Duals:
    """Sum the values of the blocks that share a budget.

    If only block rows have budgets, these are the blocks of each block row; if only block columns have budgets, those
    of each block column; else all blocks (the result is `[1, 1]`).
    """
    axis = {"rows": 1, "cols": 0}.get(pattern.balance)
    with np.errstate(over="ignore"):
        return np.asarray(values.sum(axis=axis, keepdims=True))
