"""Multiple-choice knapsack by dynamic programming: the best choice for every layer within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MAX_WORK = 2 * 10**8
"""Maximum number of additions; about a second."""


def choose(costs: Sequence[Sequence[int]], values: Sequence[Sequence[float]], budget: int) -> list[int] | None:
    """Choose one of the steps (choices) of each layer: maximal sum of values, sum of costs at most `budget`.

    `best[s]` is the maximal value of the layers so far at a cost of at most `s` units; a unit is the greatest common
    divisor of all differences of costs, so models, whose layers have few different sizes, need few units.

    Args:
        costs: Cost of each step of each layer, ascending; the sum of the first ones is at most `budget`.
        values: Value of each step of each layer.
        budget: The budget.

    Returns:
        The step of each layer, or None if the table would take longer than about a second.
    """
    extra_budget = budget - sum(steps[0] for steps in costs)
    extra_costs = [[cost - steps[0] for cost in steps] for steps in costs]
    unit = math.gcd(*(cost for steps in extra_costs for cost in steps)) or 1
    sizes = min(extra_budget, sum(steps[-1] for steps in extra_costs)) // unit + 1
    if sizes * sum(map(len, costs)) > MAX_WORK:
        return None
    best = np.zeros(sizes)
    step_at = np.zeros((len(costs), sizes), np.uint8)
    for layer, (steps, step_values) in enumerate(zip(extra_costs, values, strict=True)):
        previous, best = best, np.full(sizes, -math.inf)
        for step, (cost, value) in enumerate(zip(steps, step_values, strict=True)):
            shift = cost // unit
            if shift >= sizes:
                break
            candidate = previous[: sizes - shift] + value
            better = candidate > best[shift:]
            best[shift:][better] = candidate[better]
            step_at[layer, shift:][better] = step
    return _backtrack(step_at, extra_costs, unit)


def _backtrack(
    step_at: np.ndarray[tuple[int, int], np.dtype[np.uint8]], extra_costs: list[list[int]], unit: int
) -> list[int]:
    """Return the step of each layer in the optimum, from the last layer to the first."""
    size, chosen = step_at.shape[1] - 1, []
    for layer in range(len(extra_costs) - 1, -1, -1):
        step = int(step_at[layer, size])
        chosen.append(step)
        size -= extra_costs[layer][step] // unit
    return chosen[::-1]
