"""Channels: the rows or columns with the largest sums."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._panels import Bools, Duals
from masksmith._solution import Solution
from masksmith.patterns import Channels

from .outcome import Outcome, conclude
from .reader import Ask, Reader
from .units import best_of_all
from .violations import losses


def solve_channels(scores: Any, pattern: Channels, ask: Ask) -> Solution:
    """Keep the channels with the largest sums, ties to the first: two passes, the first to add up."""
    begun = time.perf_counter()
    reader = Reader(scores, ask)
    channels = reader.source.shape[0 if pattern.axis == "out" else 1]
    worth = _sums(reader, pattern, channels)
    if not np.isfinite(worth).all():
        raise ScoresError("the sum of a channel overflows; scale the scores down", name=ask.name)
    choice = best_of_all(worth, pattern.kept(reader.source.shape))
    _write(reader, pattern, choice.mask[0])
    objective = math.fsum(worth[choice.mask])
    violation = float(losses(worth, choice.mask, choice.u, choice.v).sum())
    kept = int(choice.mask.sum()) * (reader.rows * reader.cols // channels)
    outcome = Outcome(np.array([[objective]]), np.array([[violation]]), objective, kept, choice.solver)
    return conclude(reader, pattern, outcome, ask, begun)


def _sums(reader: Reader, pattern: Channels, channels: int) -> Duals:
    """Add up every channel: `[1, channels]`."""
    sums = np.zeros((1, channels))
    for first, rows in reader.checked():
        if pattern.axis == "out":
            sums[0, first : first + len(rows)] = rows.sum(1, dtype=np.float64)
        else:
            sums[0] += rows.reshape(-1, channels).sum(0, dtype=np.float64)
    return sums


def _write(reader: Reader, pattern: Channels, kept: Bools) -> None:
    for first, rows in reader.again():
        if pattern.axis == "out":
            mask = np.repeat(kept[first : first + len(rows), None], rows.shape[1], axis=1)
        else:
            mask = np.tile(kept, (len(rows), rows.shape[1] // len(kept)))
        reader.sink.write(first, mask)
