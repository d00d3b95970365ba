"""Reads a tensor that is one problem: panel by panel, as often as its plan needs, checked the first time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from masksmith._errors import ScoresError
from masksmith._panels import Matrix
from masksmith._solution import Solution
from masksmith._tensors import Sink, Source, flat_index
from masksmith.kernels.scan import scan
from masksmith.patterns import matrix_shape

PANEL_ENTRIES = 2**18
LARGEST = 1e300
"""Sum of a panel's scores beyond which the sums of a plan might overflow."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Ask:
    """What was asked of a plan beyond scores and pattern.

    Attributes:
        name: What messages call the tensor.
        deadline: Of `time.monotonic`, after which a search stops and a bound has to do.
        threads: Panels searched side by side.
        nested: The solution of a block pattern's nested pattern.
        on_progress: Called with (panels read, panels to read); what it raises stops the solve.
    """

    name: str | None = None
    deadline: float = math.inf
    threads: int = 1
    nested: Solution | None = None
    on_progress: OnProgress | None = None


class Reader:
    """Panels of whole units, `(first row, rows)`, from the top.

    Args:
        scores: The tensor.
        ask: Its name, and whom to tell of the progress.
        unit: Rows that belong together.
        passes: How often the tensor will be read.
    """

    def __init__(self, scores: Any, ask: Ask, unit: int = 1, passes: int = 2) -> None:
        self.tensor = scores
        self.source = Source(scores, "in", ask.name)
        self.rows, self.cols = matrix_shape(self.source.shape)
        self.sink = Sink(self.source.shape, "in")
        self._ask, self._done = ask, 0
        self._step = max(1, PANEL_ENTRIES // (unit * self.cols)) * unit
        self.passes = passes
        self._totals: dict[int, float] = {}

    @property
    def total(self) -> float:
        """Sum of all scores that were checked."""
        return math.fsum(self._totals.values())

    def checked(self) -> Iterator[tuple[int, Matrix]]:
        """Read every panel for the first time.

        Raises:
            ScoresError: At the first NaN, infinite or negative score.
        """
        for first, rows in self.again():
            self.check(first, rows)
            yield first, rows

    def again(self) -> Iterator[tuple[int, Matrix]]:
        """Read every panel once more."""
        for first in range(0, self.rows, self._step):
            yield first, self.source.rows(first, min(first + self._step, self.rows))
            self._done += 1
            if self._ask.on_progress is not None:
                self._ask.on_progress(self._done, self.passes * -(-self.rows // self._step))

    def check(self, first: int, rows: Matrix) -> None:
        """Look for bad scores and add up the good ones; panels may be checked in any order."""
        bad, total = scan(rows)
        if bad >= 0:
            value = float(rows.flat[bad])
            index = flat_index(first * self.cols + bad, self.source.shape, "in")
            raise ScoresError(why_bad(value), index, self._ask.name)
        if total > LARGEST:
            raise ScoresError("the scores are so large that their sums overflow; scale them down", name=self._ask.name)
        self._totals[first] = total


def why_bad(value: float) -> str:
    """Say what is wrong with a score."""
    if math.isnan(value):
        return "NaN"
    return "infinity" if value == math.inf else f"negative score {value:g}"
