"""Passes over the scores of a tensor, panel by panel, and the writer of its mask; the first pass checks the scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from masksmith._panels import Matrix
from masksmith._problem import Problem
from masksmith._solution import Solution
from masksmith._solution.certificate import exact_sum
from masksmith._tensors import MaskWriter

from .unit_values import smallest_bit

PANEL_ENTRIES = 2**18
"""Approximate number of entries of a panel."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class WholeTensorOptions:
    """Options of the solvers of whole tensors.

    Attributes:
        deadline: Value of `time.monotonic` after which V:N:M searches no further masks; the result is then a feasible
            mask with a bound. Other patterns ignore it.
        threads: Number of strips that V:N:M searches in parallel; panels of other patterns are read one by one.
        nested_solution: The solution of the n:m pattern inside blocks, computed for the whole matrix; None without one.
        on_progress: Called with (panels read, panels to read), both counted over all passes; for V:N:M, with (strips
            searched, strips to search). An exception in it stops the solve.
    """

    deadline: float = math.inf
    threads: int = 1
    nested_solution: Solution | None = None
    on_progress: OnProgress | None = None


class TensorPasses:
    """Reads the scores of a tensor in several passes, and collects its mask in `writer`.

    A pass yields panels `(index of the first row, matrix of the rows)` from top to bottom.

    Args:
        problem: The tensor.
        options: Options; `on_progress` is called after each panel of a pass.
        unit: The height of every panel but the last is a multiple of this number of rows.
        count: Number of passes over the tensor, for progress.

    Attributes:
        started: Value of `time.perf_counter` when the passes were created.
    """

    def __init__(self, problem: Problem, options: WholeTensorOptions, unit: int = 1, count: int = 2) -> None:
        self.problem, self.options, self._count = problem, options, count
        self.started = time.perf_counter()
        self.writer = MaskWriter(problem.source.shape)
        self._done = 0
        self._step = max(1, PANEL_ENTRIES // (unit * problem.grid.cols)) * unit
        self._totals: dict[int, float] = {}

    @property
    def total(self) -> float:
        """Sum of all scores that were checked so far."""
        return exact_sum(self._totals.values())

    def first_pass(self) -> Iterator[tuple[int, Matrix]]:
        """Read every panel for the first time.

        Raises:
            ScoresError: At the first NaN, infinite or negative score, or if a panel's sum overflows float64.
        """
        for first, last in self._panels():
            yield first, self.checked_rows(first, last)
            self._report()

    def later_pass(self) -> Iterator[tuple[int, Matrix]]:
        """Read every panel again, without checks."""
        for panel in self.uncounted_pass():
            yield panel
            self._report()

    def uncounted_pass(self) -> Iterator[tuple[int, Matrix]]:
        """Read every panel again, as `later_pass` does, without progress: few tensors need this pass."""
        for first, last in self._panels():
            yield first, self.problem.source.rows(first, last)

    def smallest_bit(self) -> float:
        """Return the largest power of two of which all scores are multiples; infinity if all are 0."""
        return smallest_bit(rows for _, rows in self.uncounted_pass())

    def checked_rows(self, first: int, last: int) -> Matrix:
        """Read and check rows, and store their sum for `total`; raises like `first_pass`.

        Panels may be checked in any order.
        """
        rows, total = self.problem.rows(first, last)
        self._totals[first] = total
        return rows

    def _panels(self) -> Iterator[tuple[int, int]]:
        rows = self.problem.grid.rows
        for first in range(0, rows, self._step):
            yield first, min(first + self._step, rows)

    def _report(self) -> None:
        self._done += 1
        if self.options.on_progress is not None:
            self.options.on_progress(self._done, self._count * -(-self.problem.grid.rows // self._step))
