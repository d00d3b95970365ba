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
from masksmith.patterns.budget import patterns_of_each_n

from .allocator import Decision, Doubles, Shapes, relative_gap
from .knapsack import choose

SLICE_ENTRIES = 2**20
"""Approximate number of scores that are sorted at once."""


class Curves:
    """Score kept as a function of n, per layer.

    For plain groups, cumulative sums of sorted scores give all n at once. Transposable tiles are solved for every n.
    For both, the score kept is concave in n (the transposable optimum is the value of a linear program as a function of
    its right-hand side), so greedy steps in order of gain per entry are optimal until a step no longer fits. Dynamic
    programming finds the optimum if it takes less than about a second; else the steps are greedy, and Lagrangian
    duality bounds the `gap`.
    """

    def __init__(self, pattern: NM, budget: Budget, shapes: Shapes) -> None:
        self._pattern, self._budget, self._shapes = pattern, budget, shapes

    @property
    def row_multiple(self) -> int:
        """Rows of the weight per tile; the number of rows of every slice but the last is a multiple of it."""
        return self._pattern.shard_rows

    @cached_property
    def _patterns(self) -> list[NM]:
        return patterns_of_each_n(self._pattern)

    def measure(self, scores: Any, state: Any, name: str) -> Doubles:
        """Return the score that the solved mask keeps, for every n that the pattern may have, and then the slacks.

        The slack of an n bounds what the best mask keeps in addition; it is 0 if the solved mask is proved optimal. The
        score of a ragged edge that stays dense is included for transposable patterns only. It is equal for every n, and
        so does not change which n is best.

        Raises:
            ScoresError: At the first invalid score.
        """
        if self._pattern.transposable:
            solutions = (solve(scores, pattern, threads=1, name=name) for pattern in self._patterns)
            pairs = [(solution.objective, solution.upper_bound - solution.objective) for solution in solutions]
            return np.array(pairs).T.reshape(-1)
        kept_scores = _scores_kept_by_plain_groups(scores, self._pattern, name)
        return np.concatenate([kept_scores, np.zeros_like(kept_scores)])

    def merge(self, measurements: Sequence[Doubles]) -> Doubles:
        """Sum the vectors of a layer's slices."""
        return np.array([exact_sum(of_slices) for of_slices in zip(*measurements, strict=True)])

    def decide(self, measurements: Mapping[str, Doubles], state: Any) -> Decision:
        """Choose every layer's n by dynamic programming, or greedily if dynamic programming would take too long."""
        slack = exact_sum(self._largest_slack(name, values) for name, values in measurements.items())
        kept_scores = {name: np.split(values, 2)[0] for name, values in measurements.items()}
        if math.isinf(exact_sum([slack, *(values[-1] for values in kept_scores.values())])):
            raise overflow_error(None)
        total = sum(math.prod(shape) for shape in self._shapes.values())
        budget = self._budget.kept_units(total, self._pattern)
        choices = {name: self._choices(name, values) for name, values in kept_scores.items()}
        layers = list(choices.values())
        optimal_indices = choose([layer.costs for layer in layers], [layer.values for layer in layers], budget)
        if optimal_indices is None:
            return _allocate_greedily(choices, budget, slack)
        return _decision(choices, dict(zip(choices, optimal_indices, strict=True)), slack)

    def _largest_slack(self, name: str, values: Doubles) -> float:
        """Return the largest slack among a layer's choices, without those below its minimum density."""
        return float(values[-len(patterns_of_each_n(self._pattern, self._budget.floor_of(name))) :].max())

    def _choices(self, name: str, values: Doubles) -> _LayerChoices:
        """Return a layer's choices, without those below its minimum density.

        They are the densest choices; the last entries of `values` belong to them.
        """
        allowed = patterns_of_each_n(self._pattern, self._budget.floor_of(name))
        costs = [int(capacity(pattern, self._shapes[name])) for pattern in allowed]
        return _LayerChoices(allowed, costs, values[len(values) - len(allowed) :].tolist())


class _LayerChoices:
    """The choices of one layer, sparsest first: patterns, costs in entries, and scores kept."""

    def __init__(self, patterns: list[NM], costs: list[int], values: list[float]) -> None:
        self.patterns, self.costs, self.values = patterns, costs, values

    def gain(self, index: int) -> float:
        """Return the gain per entry of the step from choice `index` to the next one; infinite if it costs no entry."""
        cost = self.costs[index + 1] - self.costs[index]
        return (self.values[index + 1] - self.values[index]) / cost if cost else math.inf

    def regret(self, index: int, multiplier: float) -> float:
        """Return the difference of the Lagrangian `value - multiplier * cost` between the best choice and `index`."""
        lagrangian = self.values[index] - multiplier * self.costs[index]
        return max(value - multiplier * cost for value, cost in zip(self.values, self.costs, strict=True)) - lagrangian


def _decision(choices: Mapping[str, _LayerChoices], indices: Mapping[str, int], slack: float) -> Decision:
    """Decide on choices that keep at most `slack` less than the best ones."""
    kept_score = math.fsum(layer.values[indices[name]] for name, layer in choices.items())
    patterns = {name: layer.patterns[indices[name]] for name, layer in choices.items()}
    return Decision(patterns, relative_gap(kept_score, slack))


def _allocate_greedily(choices: Mapping[str, _LayerChoices], budget: int, slack: float) -> Decision:
    """Choose greedily, and bound the gap by Lagrangian duality.

    The multiplier is the gain per entry of the first step that did not fit. `slack` is added to the bound.
    """
    indices = dict.fromkeys(choices, 0)
    remaining_budget = budget - sum(layer.costs[0] for layer in choices.values())
    unused_budget, multiplier = _greedy_steps(choices, indices, remaining_budget)
    regret = math.fsum(layer.regret(indices[name], multiplier) for name, layer in choices.items())
    return _decision(choices, indices, max(0.0, regret + multiplier * unused_budget) + slack)


def _greedy_steps(choices: Mapping[str, _LayerChoices], indices: dict[str, int], budget: int) -> tuple[int, float]:
    """Take steps in descending order of gain per entry; a layer stops at its first step that does not fit the budget.

    Args:
        choices: Choices of each layer.
        indices: Index of each layer's current choice; changed in place.
        budget: Entries that may be kept in addition to those of the current choices.

    Returns:
        The unused budget, and the gain per entry of the first step that did not fit; 0 if all fitted.
    """
    queue = [(-layer.gain(0), name) for name, layer in choices.items() if len(layer.costs) > 1]
    heapq.heapify(queue)
    multiplier = 0.0
    while queue:
        negative_gain, name = heapq.heappop(queue)
        layer, index = choices[name], indices[name]
        cost = layer.costs[index + 1] - layer.costs[index]
        if cost > budget:
            multiplier = multiplier or max(0.0, -negative_gain)
            continue
        budget -= cost
        indices[name] = index + 1
        if index + 2 < len(layer.costs):
            heapq.heappush(queue, (-layer.gain(index + 1), name))
    return budget, multiplier


def _scores_kept_by_plain_groups(scores: Any, pattern: NM, name: str) -> Doubles:
    """Return, for every n, the sum over all groups of the n largest scores, without ragged edges that stay dense."""
    source = MatrixReader(scores, pattern.axis, name)
    outputs, inputs = source.shape[0], math.prod(source.shape[1:])
    # With axis "out", `checked_rows` returns rows of the transposed matrix, so that each group is in one row.
    height, width = (inputs, outputs) if pattern.axis == "out" else (outputs, inputs)
    sums_by_rank = np.zeros(pattern.m)
    groups_per_row = width // pattern.m if pattern.ragged == "dense" else -(-width // pattern.m)
    grouped_width = groups_per_row * pattern.m
    rows_at_once = max(1, SLICE_ENTRIES // width)
    for first in range(0, height, rows_at_once):
        grouped_rows = checked_rows(source, first, min(first + rows_at_once, height))[0][:, :grouped_width]
        padded = np.pad(grouped_rows, ((0, 0), (0, grouped_width - grouped_rows.shape[1])))
        descending = np.sort(padded.reshape(-1, pattern.m), axis=1)[:, ::-1]
        sums_by_rank += descending.sum(axis=0, dtype=np.float64)
    return np.cumsum(sums_by_rank)
