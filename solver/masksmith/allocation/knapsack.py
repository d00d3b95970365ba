"""Multiple-choice knapsack by dynamic programming: the best selection of one choice per layer within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MAX_WORK = 2 * 10**8
"""Maximum number of additions; about a second."""


def choose(costs: Sequence[Sequence[int]], values: Sequence[Sequence[float]], budget: int) -> list[int] | None:
    """Select one choice for each layer: the sum of values is maximal, the sum of costs is at most `budget`.

    In the table, `best[s]` is the maximal value of the layers so far if the sum of their costs exceeds that of their
    first choices by at most `s` units. A unit is the greatest common divisor of all differences of costs within layers;
    it is large, and the table small, since the layers of a model have few different sizes.

    Args:
        costs: Costs of each layer's choices (at most 256), ascending, so that the first choice is the cheapest; the
            sum of all first costs is at most `budget`.
        values: Values of each layer's choices.
        budget: Maximum of the sum of costs.

    Returns:
        The index of each layer's choice, or None if the table would take longer than about a second.
    """
    extra_budget = budget - sum(layer_costs[0] for layer_costs in costs)
    extra_costs = [[cost - layer_costs[0] for cost in layer_costs] for layer_costs in costs]
    unit = math.gcd(*(extra for layer_extras in extra_costs for extra in layer_extras)) or 1  # 1 if all of them are 0
    table_size = min(extra_budget, sum(layer_extras[-1] for layer_extras in extra_costs)) // unit + 1
    if table_size * sum(map(len, costs)) > MAX_WORK:
        return None
    best = np.zeros(table_size)
    choice_at = np.zeros((len(costs), table_size), np.uint8)
    for layer, (layer_extras, layer_values) in enumerate(zip(extra_costs, values, strict=True)):
        previous, best = best, np.full(table_size, -math.inf)
        for choice, (extra, value) in enumerate(zip(layer_extras, layer_values, strict=True)):
            shift = extra // unit
            if shift >= table_size:
                break
            candidate = previous[: table_size - shift] + value
            better = candidate > best[shift:]
            best[shift:][better] = candidate[better]
            choice_at[layer, shift:][better] = choice
    return _backtrack(choice_at, extra_costs, unit)


def _backtrack(
    choice_at: np.ndarray[tuple[int, int], np.dtype[np.uint8]], extra_costs: list[list[int]], unit: int
) -> list[int]:
    """Return the choice of each layer in the optimum, in the order of the layers; goes back from the last layer."""
    remaining, chosen = choice_at.shape[1] - 1, []
    for layer in range(len(extra_costs) - 1, -1, -1):
        choice = int(choice_at[layer, remaining])
        chosen.append(choice)
        remaining -= extra_costs[layer][choice] // unit
    return chosen[::-1]
