"""Solves unstructured patterns: keeps the k largest scores of a tensor; a radix selection finds the k-th largest."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Matrix
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith.kernels.selection.histogram import BINS, count
from masksmith.patterns import Unstructured

from .passes import TensorPasses, WholeTensorOptions
from .verified_solution import verified_solution
from .violations import threshold_violation


def solve_unstructured(problem: Problem, pattern: Unstructured, options: WholeTensorOptions) -> Solution:
    """Keep the largest scores, ties to the lowest row-major index of the `[out, in]` view.

    The bit patterns of non-negative floats sort like the floats. The first pass counts the scores by their leading 16
    bits. Each further pass takes the scores that share the leading bits of the threshold, and counts them by the next
    16 bits, until all bits of the threshold are known; the last pass writes the mask. Memory is bounded by a panel, a
    histogram and the mask. If k scores are kept, the k-th largest one, t, is the dual that proves the mask: every kept
    score is at least t and every dropped one at most t.
    """
    # One pass for each 16 bits of a score, and one that writes the mask.
    passes = TensorPasses(problem, options, count=5 if problem.source.is_double else 3)
    threshold = _Threshold(passes, pattern.kept(problem.source.shape))
    objectives, violations, kept = [], [], 0
    for first, rows in passes.later_pass():
        mask = threshold.next_mask(rows)
        objectives.append(float((rows * mask).sum(dtype=np.float64)))
        violations.append(threshold_violation(rows, mask, threshold.value))
        kept += int(np.count_nonzero(mask))
        passes.writer.write(first, mask)
    objective = exact_sum(objectives)
    violation = exact_sum(violations)
    certificate = Certificate(pattern, np.array([[objective]]), np.array([[violation]]), passes.total, kept)
    return verified_solution(passes, certificate, "threshold")


class _Threshold:
    """The k-th largest score, `value`, found when this is created, and the mask of each panel by this threshold.

    Args:
        passes: Passes over the scores.
        keep: k, the number of scores to keep.
    """

    WORDS: ClassVar[dict[int, Any]] = {4: np.uint32, 8: np.uint64}
    """Types of unsigned integers for the bit patterns of scores, by their size in bytes."""

    def __init__(self, passes: TensorPasses, keep: int) -> None:
        self._word: Any = self.WORDS[8 if passes.problem.source.is_double else 4]
        bits = self._word(0).nbytes * 8
        self._without_sign = self._word((1 << (bits - 1)) - 1)  # mask of all bits but the sign
        prefix_mask, prefix, remaining, ties = 0, 0, keep, 0
        for shift in range(bits - 16, -1, -16):
            panels = passes.later_pass() if prefix_mask else passes.first_pass()
            counts = self._count(panels, prefix_mask, prefix, shift)
            # The bin of the threshold: the first one, from the top, up to which there are `remaining` scores or more.
            cumulative = np.cumsum(counts[::-1])
            bin_from_top = int(np.searchsorted(cumulative, remaining))
            threshold_bin = BINS - 1 - bin_from_top
            ties = int(counts[threshold_bin])
            remaining -= int(cumulative[bin_from_top]) - ties
            prefix |= threshold_bin << shift
            prefix_mask |= (BINS - 1) << shift
        self._remaining_ties = remaining
        self._keeps_all_ties = ties == remaining
        self.value = float(np.array([prefix], self._word).view(np.float64 if bits == 64 else np.float32)[0])

    def _count(self, panels: Any, prefix_mask: int, prefix: int, shift: int) -> npt.NDArray[np.int64]:
        """Return the histogram, by the 16 bits from bit `shift` on, of the scores that have this prefix.

        See `histogram.count`.
        """
        counts = np.zeros(BINS, np.int64)
        for _, rows in panels:
            word = self._word
            count(rows.view(word), word(prefix_mask), word(prefix), self._without_sign, word(shift), counts)
        return counts

    def next_mask(self, rows: Matrix) -> Bools:
        """Return the mask of the next panel: scores above the threshold, and those equal to it that may still be kept.

        Must be called once for each panel, from top to bottom; `rows` are the panel's scores.
        """
        if self._keeps_all_ties:
            mask_with_ties: Bools = rows >= self.value
            return mask_with_ties
        mask: Bools = rows > self.value
        if self._remaining_ties > 0:
            equal = np.flatnonzero(rows == self.value)[: self._remaining_ties]
            mask.flat[equal] = True
            self._remaining_ties -= len(equal)
        return mask
