"""Blocks: worth of each, choice within the budgets, and the mask made of it."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._panels import Bools, Duals, Matrix
from masksmith._solution import Solution
from masksmith._tensors import Source
from masksmith.patterns import Block, Grid

from .block_flow import best_both
from .outcome import Outcome, conclude
from .reader import Ask, Reader
from .units import Choice, best_of_all, best_of_rows
from .violations import losses


def solve_blocks(scores: Any, pattern: Block, ask: Ask) -> Solution:
    """Keep the blocks that are worth most.

    Two passes: the first adds up the blocks, the second writes the mask; memory is bounded by a row of blocks. What is
    maximised is the sum of the blocks' worths as float64 holds them. One piece (`tile_objectives`) is what has a budget
    of its own: a block row, a block column, or the tensor.
    """
    begun = time.perf_counter()
    reader = Reader(scores, ask, pattern.rows)
    grid = pattern.grid(reader.source.shape)
    down, across = pattern.blocks(grid)
    inside = _Inside(ask.nested)
    worth = np.concatenate([_worth(inside.scores(*panel), pattern, grid) for panel in reader.checked()])
    assert worth.shape == (down, across)
    if not np.isfinite(worth).all():
        raise ScoresError(f"the {pattern.norm} norm of a block overflows; scale the scores down", name=ask.name)
    choice = _choose(worth, pattern, grid)
    kept_score, edge_score, kept = _write(reader, pattern, choice.mask, inside)
    objectives = _pieces(np.where(choice.mask, worth, 0.0), pattern)
    violations = _pieces(losses(worth, choice.mask, choice.u, choice.v), pattern)
    violations[0, 0] += inside.violation
    outcome = Outcome(objectives, violations, kept_score, kept, choice.solver)
    if pattern.norm == "l1":
        outcome.edge_score = edge_score
        outcome.kept_score = math.fsum(objectives.flat) + edge_score
    return conclude(reader, pattern, outcome, ask, begun)


def block_worths(scores: Any, pattern: Block, nested: Solution | None, name: str | None) -> Duals:
    """Give the worth of every block, `[block rows, block columns]`: what `solve_blocks` maximises a sum of.

    Args:
        scores: The tensor, or whole rows of blocks of it.
        pattern: What a block is.
        nested: The solution of its nested pattern.
        name: What messages call the tensor.

    Raises:
        ScoresError: If a score is bad, or a norm overflows.
    """
    reader = Reader(scores, Ask(name), pattern.rows)
    grid, inside = pattern.grid(reader.source.shape), _Inside(nested)
    worth = np.concatenate([_worth(inside.scores(*panel), pattern, grid) for panel in reader.checked()])
    if not np.isfinite(worth).all():
        raise ScoresError(f"the {pattern.norm} norm of a block overflows; scale the scores down", name=name)
    return worth


class _Inside:
    """The mask of the nested pattern over the whole tensor; without one, everything is kept inside blocks.

    Attributes:
        violation: How far it may be from the best such mask, all tiles together.
    """

    def __init__(self, nested: Solution | None) -> None:
        self._mask = None if nested is None else Source(nested.mask, "in", "mask")
        self.violation = 0.0 if nested is None else nested.upper_bound - nested.objective

    def scores(self, first: int, rows: Matrix) -> Matrix:
        """Give the scores that may be kept of a panel."""
        return rows if self._mask is None else rows * (self._mask.rows(first, first + len(rows)) != 0)

    def limit(self, first: int, mask: Bools) -> None:
        """Take from a mask of whole blocks what is not kept inside."""
        if self._mask is not None:
            mask &= self._mask.rows(first, first + len(mask))[:, : mask.shape[1]] != 0


def _worth(rows: Matrix, pattern: Block, grid: Grid) -> Duals:
    """Give the worth of every block in a panel: `[block rows, block columns]`."""
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


def _choose(worth: Duals, pattern: Block, grid: Grid) -> Choice:
    by_row, by_col, total = pattern.budgets(grid)
    if by_row is not None and by_col is not None:
        return best_both(worth, by_row, by_col)
    if by_row is not None:
        return best_of_rows(worth, by_row)
    if by_col is not None:
        return best_of_rows(worth.T, by_col).turned()
    return best_of_all(worth, total)


def _pieces(values: Duals, pattern: Block) -> Duals:
    axis = {"rows": 1, "cols": 0}.get(pattern.balance)
    return np.asarray(values.sum(axis=axis, keepdims=True))


def _write(reader: Reader, pattern: Block, blocks: Bools, inside: _Inside) -> tuple[float, float, int]:
    """Write the mask; give the scores kept, those of a dense edge among them, and the number of entries kept."""
    width, height = blocks.shape[1] * pattern.cols, blocks.shape[0] * pattern.rows
    scores, edges, kept = [], [], 0
    for first, rows in reader.again():
        mask = np.ones(rows.shape, np.bool_)
        last = min(first + len(rows), height)
        some = np.repeat(blocks[first // pattern.rows : -(-last // pattern.rows)], pattern.rows, axis=0)
        tall = max(0, min(len(some), len(rows)))
        mask[:tall, :width] = np.repeat(some, pattern.cols, axis=1)[:tall, : rows.shape[1]]
        inside.limit(first, mask[:tall, :width])
        scores.append(float((rows * mask).sum(dtype=np.float64)))
        edges.append(float(rows[tall:].sum(dtype=np.float64) + rows[:tall, width:].sum(dtype=np.float64)))
        kept += int(np.count_nonzero(mask))
        reader.sink.write(first, mask)
    return math.fsum(scores), math.fsum(edges), kept
