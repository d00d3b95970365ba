"""Solves channel patterns: keeps the output or input channels with the largest sums of scores."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np

from masksmith._errors import overflow_error
from masksmith._panels import Bools, Duals
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith.patterns import Channels

from .passes import TensorPasses, WholeTensorOptions
from .unit_values import ExactSum, Indices, UnitValues
from .units import best_of_all
from .verified_solution import verified_solution


def solve_channels(problem: Problem, pattern: Channels, options: WholeTensorOptions) -> Solution:
    """Keep the channels with the largest sums; of equal ones, the first.

    The first pass over the scores computes the sums, the last writes the mask. Between them, channels whose order could
    be wrong by rounding errors are summed exactly.
    """
    passes, shape = TensorPasses(problem, options), problem.source.shape
    channel_count = shape[0 if pattern.axis == "out" else 1]
    with np.errstate(over="ignore"):
        sums = _sums(passes, pattern, channel_count)
    if not np.isfinite(sums).all():
        raise overflow_error(problem.name)
    read_exact = partial(_exact_sums, passes, pattern, channel_count)
    values = UnitValues(sums, math.prod(shape) // channel_count, read_exact, passes.smallest_bit)
    selection = best_of_all(values, pattern.kept(shape))
    _write_mask(passes, pattern, selection.mask[0])
    objective = exact_sum(sums[selection.mask])
    kept_entries = int(selection.mask.sum()) * (math.prod(shape) // channel_count)
    certificate = Certificate(pattern, np.array([[objective]]), selection.violations, passes.total, kept_entries)
    return verified_solution(passes, certificate, selection.solver)


def _sums(passes: TensorPasses, pattern: Channels, channel_count: int) -> Duals:
    """Return the sum of every channel: `[1, channels]`."""
    sums = np.zeros((1, channel_count))
    for first, rows in passes.first_pass():
        if pattern.axis == "out":
            sums[0, first : first + len(rows)] = rows.sum(1, dtype=np.float64)
        else:
            # A row has a value of each input channel for the first entry of the kernel, then for the second, and so on.
            sums[0] += rows.reshape(-1, channel_count).sum(0, dtype=np.float64)
    return sums


def _exact_sums(passes: TensorPasses, pattern: Channels, channel_count: int, channels: Indices) -> list[Fraction]:
    """Return the exact sum of each of the given channels; `channel_count` is the number of all."""
    sums = [ExactSum() for _ in channels]
    for first, rows in passes.uncounted_pass():
        for total, channel in zip(sums, channels.tolist(), strict=True):
            if pattern.axis == "in":
                total.add(rows.reshape(-1, channel_count)[:, channel])
            elif first <= channel < first + len(rows):
                total.add(rows[channel - first])
    return [total.total() for total in sums]


def _write_mask(passes: TensorPasses, pattern: Channels, kept_channels: Bools) -> None:
    for first, rows in passes.later_pass():
        if pattern.axis == "out":
            mask = np.repeat(kept_channels[first : first + len(rows), None], rows.shape[1], axis=1)
        else:
            mask = np.tile(kept_channels, (len(rows), rows.shape[1] // len(kept_channels)))
        passes.writer.write(first, mask)
