"""Panels of a problem: reads, checks and pads scores for solvers; certifies their answers and collects the masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith._certify import PanelCertificate, certify_panel
from masksmith._errors import overflow_error
from masksmith._panels import DROP, KEEP, Bools, Forced, Matrix, Panel, PanelAnswer
from masksmith._problem import Problem
from masksmith._solution import Certificate, Run, Solution
from masksmith._solution.certificate import exact_sum
from masksmith._tensors import MaskWriter, MatrixReader, like
from masksmith.solvers.base import Solver

PANEL_ENTRIES = 2**19
"""Panels are cut to at most this many entries; then their height is rounded up to whole tile rows.

The scores of such a panel fit into the processor's cache.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Tile rows `first` to `last` (exclusive) of a problem, those of a dense edge included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class LoadedPanel:
    """The matrix rows of a panel, read and checked, and the panel for the solver.

    Attributes:
        rows: Original scores of the matrix rows.
        total: Sum of these scores.
        panel: Panel for the solver; None if the rows contain only a dense edge.
    """

    rows: Matrix
    total: float
    panel: Panel | None


@dataclass(frozen=True, slots=True)
class _PanelSums:
    """Sums over one panel, its dense edge included.

    Attributes:
        total: All scores.
        kept_score: Kept scores, without the hysteresis bonus; 0 (not computed) if there is no hysteresis.
        edge_score: Scores of the dense edge, with the bonus of hysteresis.
        kept: Number of kept entries.
        seconds: Seconds of solving.
    """

    total: float
    kept_score: float
    edge_score: float
    kept: int
    seconds: float


class PanelStore:
    """Divides a problem into panels, reads them for solvers, certifies the answers, and builds the solution from them.

    Attributes:
        problem: The problem.
        writer: Collects the mask.
        objectives, violations: `[down, across]`, see `Certificate`; 0 for a tile until its panel is written.
        duals: Row and column duals of all tiles, 0 for a tile until its panel is written; None if the
            option `keep_duals` is False.
        cut_short: Whether the time limit replaced the solver by `Rotation` for some panel.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.writer = MaskWriter(problem.source.shape, problem.axis)
        tile, shape = problem.tile, (problem.down, problem.across)
        self.objectives, self.violations = np.zeros(shape), np.zeros(shape)
        self.cut_short = False
        self._sums: dict[int, _PanelSums] = {}
        self.duals = (
            (np.zeros((*shape, tile.rows)), np.zeros((*shape, tile.cols))) if problem.options.keep_duals else None
        )

    def spans(self) -> Iterator[Span]:
        """Divide the problem into panels of about `PANEL_ENTRIES` entries or fewer, at least one tile row each.

        All panels have the same number of tile rows, except the last one, which may have fewer. A problem of at most
        half of `PANEL_ENTRIES` is one panel. A larger problem usually has an even number of panels, so that two threads
        finish at the same time.
        """
        grid = self.problem.grid
        panel_pairs = -(-grid.rows * grid.cols // (2 * PANEL_ENTRIES))
        is_small = 2 * grid.rows * grid.cols <= PANEL_ENTRIES
        step = -(-grid.down // (1 if is_small else 2 * panel_pairs))
        for first in range(0, grid.down, step):
            yield Span(first, min(first + step, grid.down))

    def tile_count(self, span: Span) -> int:
        """Return the number of tiles of a panel that the solver gets; a dense edge has none."""
        return max(0, min(span.last, self.problem.down) - span.first) * self.problem.across

    def read(self, span: Span) -> LoadedPanel:
        """Read and check a panel's scores, and make the solver's panel: with bonus, forced entries, padding and duals.

        Raises:
            ScoresError: At the first NaN, infinite or negative score, or if their sum, with the hysteresis bonus,
                overflows float64.
            InfeasibleError: If an entry must be both kept and dropped.
        """
        problem = self.problem
        rows, total = problem.rows(*self._row_range(span))
        tile_row_count = min(span.last, problem.down) - span.first
        if tile_row_count <= 0 or problem.across == 0:
            return LoadedPanel(rows, total, None)
        scores = self._crop_or_pad(rows, tile_row_count)
        if problem.start is not None and problem.bonus:
            kept_before = self._crop_or_pad(self._mask_rows(problem.start, span), tile_row_count)
            if math.isinf(total + problem.bonus * int(np.count_nonzero(kept_before))):
                raise overflow_error(problem.name)
            scores = scores.astype(np.float64) + problem.bonus * kept_before
        output = self.writer.output(self._row_range(span)[0], *scores.shape) if scores.shape == rows.shape else None
        duals = problem.start_duals(span.first, span.last)
        return LoadedPanel(rows, total, Panel(scores, problem.tile, self._forced(span, tile_row_count), duals, output))

    def write(self, span: Span, loaded_panel: LoadedPanel, answer: PanelAnswer | None, seconds: float) -> None:
        """Certify a solver's answer and store its mask, certificate and sums.

        Rows that contain only a dense edge have no panel and no answer; they are kept entirely.

        Raises:
            VerificationError: If the mask violates the pattern, or a forced entry.
        """
        rows, panel = loaded_panel.rows, loaded_panel.panel
        height, width = 0, 0  # of the part of the rows that tiles cover
        if panel is not None:
            assert answer is not None
            self._certify(span, panel, answer)
            height, width = min(len(rows), panel.scores.shape[0]), min(rows.shape[1], panel.scores.shape[1])
        if answer is not None and answer.mask.shape == rows.shape:
            mask = answer.mask
        else:
            mask = np.ones(rows.shape, np.bool_)
            if answer is not None:
                mask[:height, :width] = answer.mask[:height, :width]
        edge = 0.0
        if self.problem.pattern.ragged == "dense":
            edge = float(rows[height:].sum(dtype=np.float64) + rows[:height, width:].sum(dtype=np.float64))
            edge += self._edge_bonus(span, height, width)
        kept_score = float((rows * mask).sum(dtype=np.float64)) if self.problem.bonus else 0.0
        self._sums[span.first] = _PanelSums(loaded_panel.total, kept_score, edge, int(np.count_nonzero(mask)), seconds)
        # A solver may have written the mask in place, into `panel.output`.
        if panel is None or mask is not panel.output:
            self.writer.write(self._row_range(span)[0], mask)

    def solution(self, solver: Solver, threads: int) -> Solution:
        """Build the solution from all panels, summed in an order that does not depend on threads.

        Raises:
            ScoresError: If the sum of the scores overflows float64.
        """
        problem = self.problem
        parts = [self._sums[first] for first in sorted(self._sums)]
        certificate = Certificate(
            problem.pattern,
            self.objectives,
            self.violations,
            total_score=exact_sum(part.total for part in parts),
            kept=sum(part.kept for part in parts),
            edge_score=exact_sum(part.edge_score for part in parts),
            kept_score=exact_sum(part.kept_score for part in parts) if problem.bonus else None,
        )
        seconds = sum(part.seconds for part in parts)
        run = Run(solver.name, seconds, threads, getattr(solver, "device", None) or "cpu", self.cut_short)
        mask = like(self.writer.mask, problem.scores)
        return Solution.from_certificate(mask, certificate, run, name=problem.name, duals=self.duals)

    def _certify(self, span: Span, panel: Panel, answer: PanelAnswer) -> None:
        certificate = certify_panel(panel, answer)
        self._check(span, panel, answer, certificate)
        tile_rows = slice(span.first, span.first + panel.down)
        self.objectives[tile_rows], self.violations[tile_rows] = certificate.objective, certificate.violation
        if self.duals is not None:
            self.duals[0][tile_rows], self.duals[1][tile_rows] = answer.row_duals, answer.col_duals

    def _check(self, span: Span, panel: Panel, answer: PanelAnswer, certificate: PanelCertificate) -> None:
        """Raise an error for the first tile that violates the pattern; if none does, for the first with a wrong entry.

        An entry is wrong if it must be kept and is dropped, or must be dropped and is kept.
        """
        illegal, tile = ~certificate.legal, panel.tile
        if panel.forced is not None and not illegal.any():
            wrong = ((panel.forced == KEEP) & ~answer.mask) | ((panel.forced == DROP) & answer.mask)
            illegal = wrong.reshape(panel.down, tile.rows, panel.across, tile.cols).any(axis=(1, 3))
        if illegal.any():
            i, j = (int(k[0]) for k in np.nonzero(illegal))
            raise self.problem.violation_error(span.first + i, j)

    def _edge_bonus(self, span: Span, height: int, width: int) -> float:
        """Return the hysteresis bonus of the rows of a panel outside the first `height` rows and `width` columns."""
        problem = self.problem
        if problem.start is None or not problem.bonus:
            return 0.0
        kept_before = self._mask_rows(problem.start, span)
        kept_before[:height, :width] = False
        return problem.bonus * int(np.count_nonzero(kept_before))

    def _row_range(self, span: Span) -> tuple[int, int]:
        """Return the first and the last (exclusive) matrix row of a panel."""
        height = self.problem.grid.tile_rows
        return span.first * height, min(span.last * height, self.problem.grid.rows)

    def _crop_or_pad(self, rows: Any, tile_row_count: int) -> Any:
        """Crop (under `ragged="dense"`) or pad with zeros to `tile_row_count` rows of whole tiles.

        A view is returned if neither is needed.
        """
        height, width = tile_row_count * self.problem.grid.tile_rows, self.problem.width
        part = rows[:height, :width]
        if part.shape == (height, width):
            return np.ascontiguousarray(part)
        padded = np.zeros((height, width), part.dtype)
        padded[: part.shape[0], : part.shape[1]] = part
        return padded

    def _mask_rows(self, mask: MatrixReader, span: Span) -> Any:
        return mask.rows(*self._row_range(span)) != 0

    def _forced(self, span: Span, tile_row_count: int) -> Forced | None:
        problem = self.problem
        if not problem.may_force_entries:
            return None
        shape = (tile_row_count * problem.grid.tile_rows, problem.width)
        keep, drop = (
            np.zeros(shape, np.bool_)
            if mask is None
            else self._crop_or_pad(self._mask_rows(mask, span), tile_row_count)
            for mask in (problem.must_keep, problem.must_drop)
        )
        both: Bools = keep & drop
        if both.any():
            row, col = (int(k[0]) for k in np.nonzero(both))
            raise problem.conflict_error(self._row_range(span)[0] + row, col)
        forced = np.zeros(shape, np.int8)
        forced[keep], forced[drop] = KEEP, DROP
        return forced
