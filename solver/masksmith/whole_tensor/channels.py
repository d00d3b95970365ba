"""Channel patterns: keeps the rows or columns with the largest sums of scores."""

from __future__ import annotations

import math

import numpy as np

from masksmith._errors import overflow_error
from masksmith._panels import Bools, Duals
from masksmith._problem import Problem
from masksmith._solution import Certificate, Solution
from masksmith._solution.certificate import exact_sum
from masksmith.patterns import Channels

from .reader import PanelReader, WholeTensorOptions
from .units import best_of_all
from .verified_solution import verified_solution
from .violations import unit_violations


def solve_channels(problem: Problem, pattern: Channels, options: WholeTensorOptions) -> Solution:
    """Keep the channels with the largest sums, ties to the first.

    The first pass over the scores computes the sums, the second writes the mask.
    """
    reader, shape = PanelReader(problem, options), problem.source.shape
    channels = shape[0 if pattern.axis == "out" else 1]
    with np.errstate(over="ignore"):
        sums = _sums(reader, pattern, channels)
    if not np.isfinite(sums).all():
        raise overflow_error(problem.name)
    selection = best_of_all(sums, pattern.kept(shape))
    _write(reader, pattern, selection.mask[0])
    objective = exact_sum(sums[selection.mask])
    violation = float(unit_violations(sums, selection.mask, selection.u, selection.v).sum())
    kept = int(selection.mask.sum()) * (math.prod(shape) // channels)
    certificate = Certificate(pattern, np.array([[objective]]), np.array([[violation]]), reader.total, kept)
    return verified_solution(reader, certificate, selection.solver)


def _sums(reader: PanelReader, pattern: Channels, channels: int) -> Duals:
    """Return the sum of every channel: `[1, channels]`."""
    sums = np.zeros((1, channels))
    for first, rows in reader.first_pass():
        if pattern.axis == "out":
            sums[0, first : first + len(rows)] = rows.sum(1, dtype=np.float64)
        else:
            sums[0] += rows.reshape(-1, channels).sum(0, dtype=np.float64)
    return sums


def _write(reader: PanelReader, pattern: Channels, kept: Bools) -> None:
    for first, rows in reader.later_pass():
        if pattern.axis == "out":
            mask = np.repeat(kept[first : first + len(rows), None], rows.shape[1], axis=1)
        else:
            mask = np.tile(kept, (len(rows), rows.shape[1] // len(kept)))
        reader.writer.write(first, mask)
