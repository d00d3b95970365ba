"""Distribution of a budget under N:M patterns: the score kept by each layer as a function of n."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from masksmith._errors import overflow_error
from masksmith._problem import checked_rows
from masksmith._solution.certificate import exact_sum
from masksmith._solve import solve
from masksmith._tensors import MatrixReader
from masksmith.patterns import NM, Budget, capacity
from masksmith.patterns.budget import steps

from .allocator import Decision, Doubles, Shapes
from .knapsack import choose

SLICE_ENTRIES = 2**20


class Curves:
    """Score kept as a function of n, per layer.

    For plain groups, cumulative sums of sorted scores give all n at once. Transposable tiles are solved for every n.
    Both functions are concave in n (the transposable optimum is the value of a linear program as a function of its
    right-hand side), so greedy steps in order of gain per entry are optimal until a step no longer fits. Dynamic
    programming finds the optimum if it takes less than about a second; else Lagrangian duality bounds the `gap`.
    """

    def __init__(self, pattern: NM, budget: Budget, shapes: Shapes) -> None:
        self._pattern, self._budget, self._shapes = pattern, budget, shapes

    @property
    def row_multiple(self) -> int:
        """Number of rows that slices are multiples of: those of a whole tile."""
        return self._pattern.shard_rows

    @cached_property
    def _steps(self) -> list[NM]:
        return steps(self._pattern)

    def measure(self, scores: Any, state: Any, name: str) -> Doubles:
        """Return, `[n]`, the score kept by the best mask for every n that the pattern may have.

        Raises:
            ScoresError: At the first invalid score.
        """
        if self._pattern.transposable:
            return np.array([solve(scores, step, threads=1, name=name).upper_bound for step in self._steps])
        return _plain(scores, self._pattern, name)

    def merge(self, measures: Sequence[Doubles]) -> Doubles:
        """Sum the vectors of a layer's slices."""
        return np.array([exact_sum(column) for column in zip(*measures, strict=True)])

    def decide(self, layers: Mapping[str, Doubles], state: Any) -> Decision:
        """Choose every layer's n, by dynamic programming, or greedily where that takes too long."""
        if math.isinf(exact_sum(values[-1] for values in layers.values())):
            raise overflow_error(None)
        total = sum(math.prod(shape) for shape in self._shapes.values())
        budget = self._budget.units(total, self._pattern)
        choices = {name: self._choices(name, layers[name]) for name in layers}
        optimum = choose([each.costs for each in choices.values()], [each.values for each in choices.values()], budget)
        if optimum is not None:
            chosen = zip(choices.items(), optimum, strict=True)
            return Decision({name: layer.patterns[index] for (name, layer), index in chosen}, 0.0)
        return _allocate_greedily(choices, budget)

    def _choices(self, name: str, values: Doubles) -> _LayerChoices:
        allowed = steps(self._pattern, self._budget.floor_of(name))
        costs = [int(capacity(step, self._shapes[name])) for step in allowed]
        return _LayerChoices(allowed, costs, values[len(values) - len(allowed) :].tolist())


class _LayerChoices:
    """The choices of one layer, sparsest first: pattern, cost in entries, and score kept."""

    def __init__(self, patterns: list[NM], costs: list[int], values: list[float]) -> None:
        self.patterns, self.costs, self.values = patterns, costs, values

    def gain(self, index: int) -> float:
        """Return the gain per entry of the step from choice `index` to the next."""
        cost = self.costs[index + 1] - self.costs[index]
        return (self.values[index + 1] - self.values[index]) / cost if cost else math.inf

    def regret(self, index: int, multiplier: float) -> float:
        """Return the difference of the Lagrangian `value - multiplier * cost` between the best choice and `index`."""
        lagrangian = self.values[index] - multiplier * self.costs[index]
        return max(value - multiplier * cost for value, cost in zip(self.values, self.costs, strict=True)) - lagrangian


def _allocate_greedily(choices: Mapping[str, _LayerChoices], budget: int) -> Decision:
    """Choose greedily; the gap comes from Lagrangian duality, with the gain of the first step that did not fit."""
    chosen = dict.fromkeys(choices, 0)
    unused, multiplier = _greedy_steps(choices, chosen, budget - sum(layer.costs[0] for layer in choices.values()))
    kept = math.fsum(layer.values[chosen[name]] for name, layer in choices.items())
    regret = math.fsum(layer.regret(chosen[name], multiplier) for name, layer in choices.items()) + multiplier * unused
    patterns = {name: layer.patterns[chosen[name]] for name, layer in choices.items()}
    return Decision(patterns, regret / (kept + regret) if regret > 0 else 0.0)


def _greedy_steps(choices: Mapping[str, _LayerChoices], chosen: dict[str, int], budget: int) -> tuple[int, float]:
    """Take steps by gain per entry while they fit; return the unused budget, and the gain of the first that did not.

    `chosen` has the current choice of each layer, changed in place.
    """
    queue = [(-layer.gain(0), name) for name, layer in choices.items() if len(layer.costs) > 1]
    heapq.heapify(queue)
    multiplier = 0.0
    while queue:
        negative_gain, name = heapq.heappop(queue)
        layer, index = choices[name], chosen[name]
        cost = layer.costs[index + 1] - layer.costs[index]
        if cost > budget:
            multiplier = multiplier or max(0.0, -negative_gain)
            continue
        budget -= cost
        chosen[name] = index + 1
        if index + 2 < len(layer.costs):
            heapq.heappush(queue, (-layer.gain(index + 1), name))
    return budget, multiplier


def _plain(scores: Any, pattern: NM, name: str) -> Doubles:
    """Return, for every n, the sum of the n largest scores of every group."""
    source = MatrixReader(scores, pattern.axis, name)
    rows, cols = source.shape[0], math.prod(source.shape[1:])
    height, width = (cols, rows) if pattern.axis == "out" else (rows, cols)
    sums = np.zeros(pattern.m)
    groups = width // pattern.m if pattern.ragged == "dense" else -(-width // pattern.m)
    step = max(1, SLICE_ENTRIES // width)
    for first in range(0, height, step):
        part = checked_rows(source, first, min(first + step, height))[0][:, : groups * pattern.m]
        padded = np.pad(part, ((0, 0), (0, groups * pattern.m - part.shape[1])))
        ordered = np.sort(padded.reshape(-1, pattern.m), axis=1)[:, ::-1]
        sums += ordered.sum(axis=0, dtype=np.float64)
    return np.cumsum(sums)
