"""V:N:M patterns: enumeration of column sets with bounds, panel by panel."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from masksmith._engine.streaming import map_windowed
from masksmith._panels import Duals
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith.kernels.selection.vnm import solve_strip
from masksmith.patterns import VNM

from .passes import TensorPasses, WholeTensorOptions
from .verified_solution import verified_solution

MAX_SCORED = 1_000_000
"""Maximum number of column sets evaluated per panel; a panel of 64 columns does not have as many."""


@dataclass(frozen=True, slots=True)
class _Strip:
    """Results of a row of panels: objective and violation per panel, edge score, entries kept, time limit reached."""

    objectives: Duals
    violations: Duals
    edge_score: float
    kept: int
    cut_short: bool


def solve_vnm(problem: Problem, pattern: VNM, options: WholeTensorOptions) -> Solution:
    """Keep the best columns of every panel, and the n largest of their entries in every row.

    Every set of columns is evaluated or excluded by a bound, unless more than `MAX_SCORED` would be evaluated, or the
    deadline is over, when only an initial set is evaluated: then the bounds give the gap. If sums are not exact in
    float64, a panel is proved only if no other set is within the rounding error of the best.
    """
    passes = TensorPasses(problem, options, pattern.v, count=1)
    rows, down, across = problem.grid.rows, problem.down, problem.across
    spans = [(first, min(first + pattern.v, rows)) for first in range(0, rows, pattern.v)]

    def solve_span(span: tuple[int, int]) -> _Strip:
        return _solve_strip(passes, pattern, span, across, options.deadline)

    with ThreadPoolExecutor(max(1, min(options.threads, len(spans))), thread_name_prefix="masksmith") as pool:
        strips = []
        for strip in map_windowed(pool, solve_span, spans, 2 * options.threads):
            strips.append(strip)
            if options.on_progress is not None:
                options.on_progress(len(strips), len(spans))
    # Under `dense`, the last strip may be the edge, which has no panels.
    certificate = Certificate(
        pattern,
        np.array([strip.objectives for strip in strips[:down]]).reshape(down, across),
        np.array([strip.violations for strip in strips[:down]]).reshape(down, across),
        total_score=passes.total,
        kept=sum(strip.kept for strip in strips),
        edge_score=exact_sum(strip.edge_score for strip in strips),
    )
    return verified_solution(passes, certificate, "branch-and-bound", any(strip.cut_short for strip in strips))


def _solve_strip(passes: TensorPasses, pattern: VNM, span: tuple[int, int], across: int, deadline: float) -> _Strip:
    first, last = span
    rows = passes.checked_rows(first, last)
    mask = np.ones(rows.shape, np.bool_)
    is_solved = len(rows) == pattern.v or pattern.ragged != "dense"  # else these rows are the dense edge
    violations, objectives = np.zeros(across), np.zeros(across)
    width = min(across * pattern.m, rows.shape[1]) if is_solved else 0
    time_is_up = time.monotonic() > deadline
    if width:
        padded = np.zeros((len(rows), across * pattern.m))
        padded[:, :width] = rows[:, :width]
        kept = np.empty(padded.shape, np.bool_)
        solve_strip(padded, pattern.n, pattern.m, 0 if time_is_up else MAX_SCORED, kept, violations)
        mask[:, :width] = kept[:, :width]
        objectives = (padded * kept).sum(0).reshape(across, pattern.m).sum(1)
    passes.writer.write(first, mask)
    edge = float(rows[:, width:].sum(dtype=np.float64))
    return _Strip(objectives, violations, edge, int(np.count_nonzero(mask)), time_is_up and bool(width))
