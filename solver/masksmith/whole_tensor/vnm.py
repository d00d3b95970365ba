"""V:N:M patterns: enumeration of column sets with bounds, panel by panel."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from masksmith._engine.streaming import map_windowed
from masksmith._panels import Doubles
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith.kernels.selection.vnm import solve_strip
from masksmith.patterns import VNM

from .passes import TensorPasses, WholeTensorOptions
from .verified_solution import verified_solution

MAX_SCORED = 1_000_000
"""Maximum number of column sets evaluated per panel after a local search.

No pattern has more: 64 columns, the most that a panel may have, have 635,376 sets of 4 columns.
"""


@dataclass(frozen=True, slots=True)
class _StripResult:
    """The result of a row of panels, a strip.

    Attributes:
        objectives, violations: `[across]`, one number per panel, see `Certificate`.
        edge_score: Sum of the scores of the dense edge.
        kept: Number of kept entries.
        cut_short: Whether the strip has panels and began after the deadline.
    """

    objectives: Doubles
    violations: Doubles
    edge_score: float
    kept: int
    cut_short: bool


def solve_vnm(problem: Problem, pattern: VNM, options: WholeTensorOptions) -> Solution:
    """Keep the best columns of every panel, and the n largest of their entries in every row.

    Every set of columns is evaluated or excluded by a bound, except in a strip that begins after the deadline: there,
    each panel keeps the set that a local search finds, and the gap is computed from the bounds of the sets that were
    not evaluated.

    If sums are not exact in float64, a panel is proved optimal only if no other set is within the rounding error of the
    best.
    """
    passes = TensorPasses(problem, options, pattern.v, count=1)
    row_count, down, across = problem.grid.rows, problem.down, problem.across
    spans = [(first, min(first + pattern.v, row_count)) for first in range(0, row_count, pattern.v)]

    def solve_span(span: tuple[int, int]) -> _StripResult:
        return _solve_strip(passes, pattern, span, across, options.deadline)

    with ThreadPoolExecutor(max(1, min(options.threads, len(spans))), thread_name_prefix="masksmith") as pool:
        strips = []
        for strip in map_windowed(pool, solve_span, spans, 2 * options.threads):
            strips.append(strip)
            if options.on_progress is not None:
                options.on_progress(len(strips), len(spans))
    # Under `ragged="dense"`, the last strip may be the edge, which has no panels.
    certificate = Certificate(
        pattern,
        np.array([strip.objectives for strip in strips[:down]]).reshape(down, across),
        np.array([strip.violations for strip in strips[:down]]).reshape(down, across),
        total_score=passes.total,
        kept=sum(strip.kept for strip in strips),
        edge_score=exact_sum(strip.edge_score for strip in strips),
    )
    return verified_solution(passes, certificate, "branch-and-bound", any(strip.cut_short for strip in strips))


def _solve_strip(
    passes: TensorPasses, pattern: VNM, span: tuple[int, int], across: int, deadline: float
) -> _StripResult:
    first, last = span
    rows = passes.checked_rows(first, last)
    mask = np.ones(rows.shape, np.bool_)
    has_panels = len(rows) == pattern.v or pattern.ragged != "dense"  # else these rows are the dense edge
    violations, objectives = np.zeros(across), np.zeros(across)
    width = min(across * pattern.m, rows.shape[1]) if has_panels else 0
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
    return _StripResult(objectives, violations, edge, int(np.count_nonzero(mask)), time_is_up and bool(width))
