"""Exact values of blocks, for those whose order the values in float64 do not determine."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby

from masksmith._panels import Duals, Matrix
from masksmith._problem import Problem
from masksmith.patterns import Hybrid

from .block_panels import BlockPattern, InnerMask
from .passes import TensorPasses
from .unit_values import ExactSum, Indices, UnitValues, exact_sum_of_squares


def with_exact_values(rounded: Duals, passes: TensorPasses, pattern: BlockPattern, inner: InnerMask) -> UnitValues:
    """Add a bound on rounding errors, and exact numbers, to the values of blocks.

    Args:
        rounded: `[block rows, block columns]`, the values in float64: norms, or for a hybrid pattern gains.
        passes: Passes over the tensor, whose scores are read again.
        pattern: The pattern.
        inner: The mask inside the blocks.
    """
    norm = "l1" if isinstance(pattern, Hybrid) else pattern.norm

    def read_exact(blocks: Indices) -> Iterator[Fraction]:
        scores_of_blocks = _scores(passes.problem, pattern, inner, blocks, rounded.shape[1])
        return (_exact_number(scores, norm) for scores in scores_of_blocks)

    # A sum of n numbers has n - 1 rounding errors; squares, root, quotient and powers of two have fewer than 8.
    operations = 0 if norm == "max" else pattern.rows * pattern.cols + 8
    return UnitValues(rounded, operations, read_exact, passes.smallest_bit if norm == "l1" else None)


def _scores(
    problem: Problem, pattern: BlockPattern, inner: InnerMask, blocks: Indices, across: int
) -> Iterator[Matrix]:
    """Read the scores that count in each block: 0 where the inner mask drops them; for a hybrid, where it keeps them.

    `blocks` are sorted indices of blocks; each block row has `across` blocks.
    """
    for row, blocks_of_row in groupby(blocks.tolist(), lambda block: block // across):
        first = row * pattern.rows
        scores = problem.source.rows(first, min(first + pattern.rows, problem.grid.rows))
        if inner.exists:
            kept = inner.rows(first, first + len(scores))
            scores = scores * (~kept if isinstance(pattern, Hybrid) else kept)
        for block in blocks_of_row:
            left = block % across * pattern.cols
            yield scores[:, left : left + pattern.cols]


def _exact_number(scores: Matrix, norm: str) -> Fraction:
    """Return a number that grows with the norm of a block: the exact norm; for `l2` its square."""
    if norm == "l2":
        return exact_sum_of_squares(scores)
    total = ExactSum()
    total.add(scores)
    return total.total() / (scores.size if norm == "mean" else 1)
