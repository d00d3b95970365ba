"""One tensor of a solve: where its panels come from and where their answers go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._certify import Certificate, certify_panel
from ._errors import InfeasibleError, ScoresError, VerificationError
from ._panels import DROP, KEEP, Bools, Duals, Forced, Matrix, Panel, PanelAnswer
from ._solution import Solution
from ._tensors import Sink, Source, bad_score, bool_source, flat_index
from .kernels.scan import scan
from .patterns import Pattern, TilePattern

PANEL_ENTRIES = 2**19


@dataclass(frozen=True, slots=True)
class Span:
    """Tile rows `first` to `last` (exclusive) of a layer."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the entries of one panel: all scores, kept ones, kept ones of a dense edge; and how many are kept."""

    total: float
    kept_score: float
    edge_score: float
    kept: int


@dataclass(frozen=True)
class Extras:
    """What a solve was asked beyond scores and pattern; masks have the scores' shape."""

    must_keep: Any = None
    must_drop: Any = None
    warm_start: Any = None
    hysteresis: float = 0.0
    keep_duals: bool = False
    weight: Any = None


class Layer:
    """A tensor cut into panels; collects their masks and certificates.

    Args:
        scores: The tensor.
        pattern: What is allowed.
        extras: Forced entries, warm start, hysteresis.
        name: What messages call the tensor.
    """

    def __init__(self, scores: Any, pattern: TilePattern, extras: Extras, name: str | None = None) -> None:
        self.name = name
        self.scores = scores
        self.pattern = pattern
        self.extras = extras
        self.source = Source(scores, pattern.axis, name)
        self.grid = pattern.grid(self.source.shape)
        self.tile = pattern.tile
        dense = pattern.ragged == "dense"
        self.down = self.grid.rows // self.tile.rows if dense else self.grid.down
        self.across = self.grid.cols // self.tile.cols if dense else self.grid.across
        self.sink = Sink(self.source.shape, pattern.axis)
        self.objectives = np.zeros((self.down, self.across))
        self.violations = np.zeros((self.down, self.across))
        self.cut_short = False
        self._tallies: dict[int, Tally] = {}
        self._seconds: dict[int, float] = {}
        self._totals: dict[int, float] = {}
        self._start = _read_start(extras.warm_start, self.source.shape, pattern)
        self._keep, self._drop = (
            None if mask is None else bool_source(mask, self.source.shape, pattern.axis, label)
            for mask, label in ((extras.must_keep, "must_keep"), (extras.must_drop, "must_drop"))
        )
        self.duals = self._empty_duals() if extras.keep_duals else None

    @property
    def has_forced(self) -> bool:
        """Whether any entry may be forced."""
        return self._keep is not None or self._drop is not None

    def spans(self) -> Iterator[Span]:
        """Cut the layer into equal panels of about `PANEL_ENTRIES` entries, at least one row of tiles each.

        They come in pairs, so that two threads end at the same time.
        """
        total = -(-self.grid.rows // self.tile.rows)
        pairs = -(-self.grid.rows * self.grid.cols // (2 * PANEL_ENTRIES))
        alone = 2 * self.grid.rows * self.grid.cols <= PANEL_ENTRIES
        step = -(-total // (1 if alone else 2 * pairs))
        for first in range(0, total, step):
            yield Span(first, min(first + step, total))

    def read(self, span: Span) -> tuple[Matrix, Panel | None]:
        """Read a panel's scores: as given (checked), and shifted, forced and padded for the solver.

        The panel is None where only a dense edge remains.

        Raises:
            ScoresError: At the first NaN, infinite or negative score.
            InfeasibleError: If an entry must be both kept and dropped.
        """
        rows = self._read_checked(span)
        whole = min(span.last, self.down) - span.first
        if whole <= 0 or self.across == 0:
            return rows, None
        scores = self._fit(rows, whole)
        if self.extras.hysteresis > 0 and self._start is not None:
            held = self._fit(self._bools(self._start, span), whole)
            scores = scores.astype(np.float64) + self.extras.hysteresis * held
        duals = None
        if isinstance(self.extras.warm_start, Solution) and self.extras.warm_start.duals is not None:
            u, v = self.extras.warm_start.duals
            duals = (u[span.first : span.last], v[span.first : span.last])
        room = self.sink.room(span.first * self.tile.rows, *scores.shape) if scores.shape == rows.shape else None
        return rows, Panel(scores, self.tile, self._forced(span, whole), duals, room)

    def write(
        self, span: Span, rows: Matrix, panel: Panel | None, answer: PanelAnswer | None, seconds: float = 0.0
    ) -> None:
        """Certify an answer, and take its mask and numbers over.

        Raises:
            VerificationError: If the mask breaks the pattern, or a forced entry.
        """
        mask, height, width = np.ones(rows.shape, np.bool_) if answer is None else answer.mask, 0, 0
        objective = 0.0
        if panel is not None and answer is not None:
            certificate = certify_panel(panel, answer)
            self._check(span, panel, answer, certificate)
            here = slice(span.first, span.first + panel.down)
            self.objectives[here], self.violations[here] = certificate.objective, certificate.violation
            objective = float(certificate.objective.sum())
            height, width = min(len(rows), panel.scores.shape[0]), min(rows.shape[1], panel.scores.shape[1])
            if mask.shape != rows.shape:
                mask = np.ones(rows.shape, np.bool_)
                mask[:height, :width] = answer.mask[:height, :width]
            if self.duals is not None:
                self.duals[0][here], self.duals[1][here] = answer.row_duals, answer.col_duals
        self._tallies[span.first] = self._tally(span, rows, mask, height, width, objective)
        self._seconds[span.first] = seconds
        if panel is None or mask is not panel.room:
            self.sink.write(span.first * self.tile.rows, mask)

    def total(self) -> Tally:
        """Add up all panels, in an order that does not depend on threads."""
        parts = [self._tallies[first] for first in sorted(self._tallies)]
        return Tally(
            math.fsum(part.total for part in parts),
            math.fsum(part.kept_score for part in parts),
            math.fsum(part.edge_score for part in parts),
            sum(part.kept for part in parts),
        )

    @property
    def solve_s(self) -> float:
        """Seconds that solvers took, added over threads."""
        return sum(self._seconds.values())

    def _tally(self, span: Span, rows: Matrix, mask: Bools, height: int, width: int, objective: float) -> Tally:
        edge = 0.0
        if self.pattern.ragged == "dense":
            edge = float(rows[height:].sum(dtype=np.float64) + rows[:height, width:].sum(dtype=np.float64))
        shifted = self.extras.hysteresis > 0 and self._start is not None
        kept_score = float((rows * mask).sum(dtype=np.float64)) if shifted else objective + edge
        return Tally(self._totals[span.first], kept_score, edge, int(np.count_nonzero(mask)))

    def _read_checked(self, span: Span) -> Matrix:
        first = span.first * self.tile.rows
        rows = self.source.rows(first, min(span.last * self.tile.rows, self.grid.rows))
        bad, self._totals[span.first] = scan(rows)
        if bad >= 0:
            value = float(rows.flat[bad])
            index = flat_index(first * self.grid.cols + bad, self.source.shape, self.pattern.axis)
            raise ScoresError(bad_score(value), index, self.name)
        return rows

    def _fit(self, rows: Any, whole: int) -> Any:
        """Crop to whole tiles (`dense`) or pad with zeros up to them; a view where neither is needed."""
        height, width = whole * self.tile.rows, self.across * self.tile.cols
        part = rows[:height, :width]
        if part.shape == (height, width):
            return np.ascontiguousarray(part)
        padded = np.zeros((height, width), part.dtype)
        padded[: part.shape[0], : part.shape[1]] = part
        return padded

    def _bools(self, source: Source, span: Span) -> Any:
        rows = source.rows(span.first * self.tile.rows, min(span.last * self.tile.rows, self.grid.rows))
        return rows != 0

    def _forced(self, span: Span, whole: int) -> Forced | None:
        if not self.has_forced:
            return None
        keep, drop = (
            None if source is None else self._fit(self._bools(source, span), whole)
            for source in (self._keep, self._drop)
        )
        if keep is not None and drop is not None and (keep & drop).any():
            row, col = (int(k[0]) for k in np.nonzero(keep & drop))
            tile = (span.first + row // self.tile.rows, col // self.tile.cols)
            raise InfeasibleError("an entry is in must_keep and in must_drop", tile, self.name)
        forced = np.zeros((whole * self.tile.rows, self.across * self.tile.cols), np.int8)
        if keep is not None:
            forced[keep] = KEEP
        if drop is not None:
            forced[drop] = DROP
        return forced

    def _check(self, span: Span, panel: Panel, answer: PanelAnswer, certificate: Certificate) -> None:
        broken = ~certificate.legal
        if panel.forced is not None and not broken.any():
            wrong = ((panel.forced == KEEP) & ~answer.mask) | ((panel.forced == DROP) & answer.mask)
            cut = wrong.reshape(panel.down, self.tile.rows, panel.across, self.tile.cols)
            broken = cut.any(axis=(1, 3))
        if broken.any():
            i, j = (int(k[0]) for k in np.nonzero(broken))
            raise VerificationError(
                f"{self.name or 'scores'}: the solver's mask breaks {self.pattern} in tile [{span.first + i}, {j}]; "
                f"please report this"
            )

    def _empty_duals(self) -> tuple[Duals, Duals]:
        return (
            np.zeros((self.down, self.across, self.tile.rows)),
            np.zeros((self.down, self.across, self.tile.cols)),
        )


def _read_start(warm_start: Any, shape: tuple[int, ...], pattern: Pattern) -> Source | None:
    if warm_start is None:
        return None
    mask = warm_start.mask if isinstance(warm_start, Solution) else warm_start
    return bool_source(mask, shape, pattern.axis, "warm_start")
