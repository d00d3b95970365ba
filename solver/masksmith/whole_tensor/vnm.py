"""V:N:M: panel by panel, branch and bound over all choices of columns."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith._engine.streaming import windowed
from masksmith._panels import Duals
from masksmith._solution import Solution
from masksmith.kernels.selection.vnm import solve_strip
from masksmith.patterns import VNM

from .outcome import Outcome, conclude
from .reader import Ask, Reader

MAX_SCORED = 1_000_000
"""Choices of columns that are scored in one panel at most: more than a panel of 64 columns has."""


@dataclass(frozen=True, slots=True)
class _Strip:
    """What one row of panels came to."""

    objectives: Duals
    violations: Duals
    edge_score: float
    kept: int
    cut_short: bool


def solve_vnm(scores: Any, pattern: VNM, ask: Ask) -> Solution:
    """Choose the best columns of every panel, then the n largest of them in every row.

    Every choice of columns is scored or excluded by a bound. Past the deadline none is scored but a good one, and the
    bounds are what is known. Sums that float64 does not hold exactly prove a panel only if no other choice comes close.
    """
    begun = time.perf_counter()
    grid = pattern.grid(Reader(scores, ask).source.shape)
    reader = Reader(scores, ask, pattern.v, passes=1)
    spans = [(first, min(first + pattern.v, reader.rows)) for first in range(0, reader.rows, pattern.v)]
    across = grid.cols // pattern.m if pattern.ragged == "dense" else grid.across
    down = grid.rows // pattern.v if pattern.ragged == "dense" else grid.down

    def work(span: tuple[int, int]) -> _Strip:
        return _solve_strip(reader, pattern, span, across, ask.deadline)

    with ThreadPoolExecutor(max(1, min(ask.threads, len(spans))), thread_name_prefix="masksmith") as pool:
        strips = []
        for strip in windowed(pool, work, spans, 2 * ask.threads):
            strips.append(strip)
            if ask.on_progress is not None:
                ask.on_progress(len(strips), len(spans))
    objectives = np.array([strip.objectives for strip in strips[:down]]).reshape(down, across)
    violations = np.array([strip.violations for strip in strips[:down]]).reshape(down, across)
    edge = math.fsum(strip.edge_score for strip in strips)
    outcome = Outcome(
        objectives,
        violations,
        math.fsum(objectives.flat) + edge,
        sum(strip.kept for strip in strips),
        "branch-and-bound",
        edge,
        any(strip.cut_short for strip in strips),
    )
    return conclude(reader, pattern, outcome, ask, begun)


def _solve_strip(reader: Reader, pattern: VNM, span: tuple[int, int], across: int, deadline: float) -> _Strip:
    first, last = span
    rows = reader.source.rows(first, last)
    reader.check(first, rows)
    mask = np.ones(rows.shape, np.bool_)
    whole = len(rows) == pattern.v or pattern.ragged != "dense"
    excess, objectives = np.zeros(across), np.zeros(across)
    width = min(across * pattern.m, rows.shape[1]) if whole else 0
    hurried = time.monotonic() > deadline
    if width:
        padded = np.zeros((len(rows), across * pattern.m))
        padded[:, :width] = rows[:, :width]
        kept = np.empty(padded.shape, np.bool_)
        solve_strip(padded, pattern.n, pattern.m, 0 if hurried else MAX_SCORED, kept, excess)
        mask[:, :width] = kept[:, :width]
        objectives = (padded * kept).sum(0).reshape(across, pattern.m).sum(1)
    reader.sink.write(first, mask)
    edge = float(rows[:, width:].sum(dtype=np.float64))
    return _Strip(objectives, excess, edge, int(np.count_nonzero(mask)), hurried and bool(width))
