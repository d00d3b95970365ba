"""Multiple-choice knapsack by dynamic programming: the best choice for every layer within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MAX_WORK = 2 * 10**8
"""Maximum number of additions; about a second."""


def choose(costs: Sequence[Sequence[int]], values: Sequence[Sequence[float]], room: int) -> list[int] | None:
    """Choose one step per layer, so that the sum of costs is at most `room` and the sum of values is maximal.

    `best[s]` is the maximal value of the layers so far at a cost of at most `s` units; a unit is the greatest common
    divisor of all differences of costs, so that real models (whose layers have few sizes) need few units.

    Args:
        costs: Cost of each step of each layer, ascending; the sum of the first ones is at most `room`.
        values: Value of each step of each layer.
        room: The budget.

    Returns:
        The step of each layer, or None if the table would take longer than about a second.
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
