"""The best choice of one step for every layer within a budget, by dynamic programming over what is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MAX_WORK = 2 * 10**8
"""Sums looked at; about a second."""


def choose(costs: Sequence[Sequence[int]], values: Sequence[Sequence[float]], room: int) -> list[int] | None:
    """Choose one step a layer, so that costs stay within `room` and values add up to the most.

    `best[s]` is the most that the layers so far keep for at most `s` units; a unit is the greatest common divisor of
    all differences of costs, so that real models (whose layers have few sizes) need few.

    Args:
        costs: What each step of each layer costs, rising; the first ones together are within `room`.
        values: What each keeps.
        room: The budget.

    Returns:
        The step of each layer, or None where the table would take longer than about a second.
    """
    spare = room - sum(steps[0] for steps in costs)
    extra = [[cost - steps[0] for cost in steps] for steps in costs]
    unit = math.gcd(*(cost for steps in extra for cost in steps)) or 1
    slots = min(spare, sum(steps[-1] for steps in extra)) // unit + 1
    if slots * sum(map(len, costs)) > MAX_WORK:
        return None
    best = np.zeros(slots)
    taken = np.zeros((len(costs), slots), np.uint8)
    for layer, (steps, gains) in enumerate(zip(extra, values, strict=True)):
        before, best = best, np.full(slots, -math.inf)
        for step, (cost, gain) in enumerate(zip(steps, gains, strict=True)):
            shift = cost // unit
            if shift >= slots:
                break
            offer = before[: slots - shift] + gain
            better = offer > best[shift:]
            best[shift:][better] = offer[better]
            taken[layer, shift:][better] = step
    return _trace(taken, extra, unit)


def _trace(taken: np.ndarray[tuple[int, int], np.dtype[np.uint8]], extra: list[list[int]], unit: int) -> list[int]:
    place, chosen = taken.shape[1] - 1, []
    for layer in range(len(extra) - 1, -1, -1):
        step = int(taken[layer, place])
        chosen.append(step)
        place -= extra[layer][step] // unit
    return chosen[::-1]
