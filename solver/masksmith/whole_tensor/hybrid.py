"""Hybrid patterns: keeps dense the blocks that lose most score under the inner pattern."""

from __future__ import annotations

import numpy as np

from masksmith._panels import Duals
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith.patterns import Hybrid

from .block_panels import InnerMask, block_sums, write_mask
from .exact_blocks import with_exact_values
from .passes import TensorPasses, WholeTensorOptions
from .unit_values import UnitValues
from .units import KeptUnits, best_of_all
from .verified_solution import verified_solution
from .violations import ROUND_UP_FACTOR, unit_violations


def solve_hybrid(problem: Problem, pattern: Hybrid, options: WholeTensorOptions) -> Solution:
    """Keep dense the blocks with the largest gains, ties to the lowest row-major index.

    The gain `g_b` of a block is the sum of the scores that the solved inner mask drops of it. An allowed mask with the
    dense blocks D keeps at most `sum_b U_b + sum_(b in D) (T_b - U_b)`, where `T_b` is the sum of the block's scores
    and `U_b` an upper bound on what an inner mask keeps of it. Therefore, with k dense blocks, no mask keeps more than
    `sum_b U_b` plus the k largest `T_b - U_b`. If the inner mask is proved optimal in every block, then
    `T_b - U_b = g_b`, and the chosen blocks reach the bound.

    The first pass computes the gains, the second writes the mask; memory is bounded by a row of blocks, the mask and
    the inner solution.
    """
    passes = TensorPasses(problem, options, pattern.rows)
    inner = InnerMask(options.nested_solution, problem.options.view)
    gains = _gains(passes, pattern, inner)
    values = with_exact_values(gains, passes, pattern, inner)
    dense = best_of_all(values, pattern.dense_blocks(problem.grid))
    violation = _violation(values, dense, inner.violations(pattern, problem.grid))
    written = write_mask(passes, pattern, dense.mask, inner)
    certificate = Certificate(
        pattern,
        np.array([[written.inside]]),
        np.array([[violation]]),
        total_score=passes.total,
        kept=written.kept,
        edge_score=written.edge,
    )
    return verified_solution(passes, certificate, dense.solver, inner.cut_short)


def _gains(passes: TensorPasses, pattern: Hybrid, inner: InnerMask) -> Duals:
    """Return the gain of every block, `[block rows, block columns]`, summed without cancellation."""
    panels = passes.first_pass()
    return np.concatenate([block_sums(rows * ~inner.rows(first, first + len(rows)), pattern) for first, rows in panels])


def _violation(gains: UnitValues, dense: KeptUnits, slack: Duals) -> float:
    """Return an upper bound on the score that the chosen mask loses to the optimum; 0.0 if it is proved optimal.

    Args:
        gains: Gains `g_b` of the blocks (see `solve_hybrid`).
        dense: The chosen blocks.
        slack: Upper bound `U_b` on what an inner mask keeps of each block, minus the inner objective. With `T_b` the
            total of the block, `T_b - U_b = gains - slack`, since `U_b` is the inner objective plus the slack.
    """
    if not slack.any():
        return float(dense.violations.sum())
    # Bounds of `T_b - U_b` that allow for rounding errors, also for those of the subtraction.
    factor = 1 + gains.tolerance
    lower, upper = gains.rounded / factor - slack * factor, gains.rounded * factor - slack / factor
    bounds = np.where(dense.mask, lower, upper)
    threshold = np.sort(bounds, axis=None)[-int(dense.mask.sum())]
    violations = unit_violations(bounds, dense.mask, np.full((1, 1), threshold), np.zeros((1, 1)))
    return float(slack[~dense.mask].sum() * ROUND_UP_FACTOR + violations.sum())
