"""Distribution of a budget over layers: one threshold for the entries or blocks of all layers, above their floors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._problem import Problem, checked_rows
from masksmith._solution.certificate import exact_sum
from masksmith._solve import solve
from masksmith._tensors import MatrixReader
from masksmith.kernels.selection.histogram import BINS, count
from masksmith.patterns import Block, Budget, Pattern, Unstructured
from masksmith.patterns.budget import count_units, floor_units, with_full_density, with_kept_units
from masksmith.whole_tensor.blocks import block_values

from .allocator import Decision, Doubles, Shapes, relative_gap

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _ThresholdState:
    """The state of the radix selection of the threshold, from the highest bits of the scores to the lowest.

    Attributes:
        shift: Position of the lowest of the next 16 bits to select.
        prefix_mask: Has a 1 at each bit that is selected already.
        prefix: The selected bits of the threshold.
        above: Number of scores of each layer that are above the threshold whatever the next bits are.
    """

    shift: int
    prefix_mask: int = 0
    prefix: int = 0
    above: Mapping[str, int] = field(default_factory=dict)


class EntryThreshold:
    """Keeps each layer's floor and the largest scores of all layers; the threshold is selected 16 bits at a time.

    A layer keeps its floor, or all its scores above the threshold t if those are more; scores equal to t fill the rest
    of the budget. Any other distribution of the same number of entries replaces scores of at least t by scores of at
    most t, or violates a floor, so this one is optimal. Scores are compared in float64 if `double`, else in float32.
    """

    row_multiple = 1

    def __init__(self, pattern: Pattern, budget: Budget, shapes: Shapes, double: bool) -> None:
        self._pattern, self._shapes, self._budget = pattern, shapes, budget
        self._unsigned: Any = np.uint64 if double else np.uint32
        self._bits = 64 if double else 32
        self._floors = {name: floor_units(pattern, shape, budget.floor_of(name)) for name, shape in shapes.items()}
        self._budget_units = budget.kept_units(sum(count_units(pattern, shape) for shape in shapes.values()), pattern)

    def measure(self, scores: Any, state: _ThresholdState | None, name: str) -> Doubles:
        """Count the scores with the selected prefix by their next 16 bits.

        Returns:
            The values of these 16 bits that occur, followed by the count of each.
        """
        selection = state or _ThresholdState(self._bits - 16)
        counts, unsigned = np.zeros(BINS, np.int64), self._unsigned
        checked, _ = checked_rows(MatrixReader(scores, "in", name), 0, len(scores))
        rows = checked.astype(np.float64 if self._bits == 64 else np.float32, copy=False)
        # All bits except the sign, so that -0.0 counts as 0.0.
        magnitude_bits = unsigned((1 << (self._bits - 1)) - 1)
        prefix_mask, prefix = unsigned(selection.prefix_mask), unsigned(selection.prefix)
        count(rows.view(unsigned), prefix_mask, prefix, magnitude_bits, unsigned(selection.shift), counts)
        values = np.flatnonzero(counts)
        return np.concatenate([values, counts[values]]).astype(np.float64)

    def merge(self, measurements: Sequence[Doubles]) -> Doubles:
        """Sum the histograms of a layer's slices: `[65536]`."""
        counts = np.zeros(BINS, np.int64)
        for measurement in measurements:
            values, counts_of_values = np.split(measurement, 2)
            counts[values.astype(np.int64)] += counts_of_values.astype(np.int64)
        return counts.astype(np.float64)

    def decide(self, measurements: Mapping[str, Doubles], state: _ThresholdState | None) -> _ThresholdState | Decision:
        """Select the next 16 bits of the threshold; after the last ones, decide how much each layer keeps."""
        selection = state or _ThresholdState(self._bits - 16, above=dict.fromkeys(self._shapes, 0))
        # By layer, [b]: number of scores that have the prefix and then at least b in the next 16 bits, or that are
        # above the threshold anyway.
        at_least = {
            name: selection.above[name] + np.cumsum(measurements[name].astype(np.int64)[::-1])[::-1]
            for name in self._shapes
        }
        kept_by_bits = sum(np.maximum(at_least[name], floor) for name, floor in self._floors.items())
        # The largest threshold at which layers keep at least the budget.
        bits = int(np.flatnonzero(np.asarray(kept_by_bits) >= self._budget_units).max(initial=0))
        above = {name: int(counts[bits + 1]) if bits + 1 < BINS else selection.above[name]
                 for name, counts in at_least.items()}  # fmt: skip
        if selection.shift == 0:
            return self._distribute(above, {name: int(counts[bits]) for name, counts in at_least.items()})
        prefix_mask = selection.prefix_mask | ((BINS - 1) << selection.shift)
        return _ThresholdState(selection.shift - 16, prefix_mask, selection.prefix | (bits << selection.shift), above)

    def _distribute(self, above: Mapping[str, int], at_least: Mapping[str, int]) -> Decision:
        """Keep the floors and the scores above the threshold; fill the budget with scores equal to it, layer by layer.

        Args:
            above: By layer, the number of scores above the threshold.
            at_least: By layer, the number of scores that are at least the threshold.
        """
        kept = {name: max(floor, above[name]) for name, floor in self._floors.items()}
        remaining_budget = self._budget_units - sum(kept.values())
        for name, minimum in kept.items():
            ties = min(remaining_budget, max(minimum, at_least[name]) - minimum)
            kept[name] += ties
            remaining_budget -= ties
        return Decision(_patterns(self._pattern, self._shapes, kept), 0.0)


class BlockThreshold:
    """Keeps each layer's best blocks up to its floor, then the best of the remaining blocks of all layers."""

    def __init__(self, pattern: Block, budget: Budget, shapes: Shapes) -> None:
        self._pattern, self._budget, self._shapes = pattern, budget, shapes
        self.row_multiple = (
            pattern.rows if pattern.nested is None else math.lcm(pattern.rows, pattern.nested.shard_rows)
        )

    def measure(self, scores: Any, state: Any, name: str) -> Doubles:
        """Return the value of every block of these rows, in row-major order, and then the slack of the nested mask.

        The slack bounds what the best nested mask keeps in addition; it is 0 if the mask is proved optimal. There are
        no values if there are fewer rows than a block has, and `ragged="dense"` keeps them all.
        """
        pattern, reader = self._pattern, MatrixReader(scores, "in", name)
        if pattern.ragged == "dense" and reader.shape[0] < pattern.rows:
            checked_rows(reader, 0, reader.shape[0])
            return np.zeros(1)
        nested_solution = None if pattern.nested is None else solve(scores, pattern.nested, threads=1, name=name)
        # `Problem` requires a density that keeps at least one block. In a slice of few rows, the pattern's density
        # could round to no block, so full density replaces it; the values of blocks do not depend on the density.
        full_pattern = with_full_density(pattern)
        assert isinstance(full_pattern, Block)
        values = block_values(Problem(scores, full_pattern, name=name), full_pattern, nested_solution)
        slack = 0.0 if nested_solution is None else nested_solution.upper_bound - nested_solution.objective
        return np.append(values, slack)

    def merge(self, measurements: Sequence[Doubles]) -> Doubles:
        """Concatenate the values of a layer's slices, and sum the slacks."""
        return np.append(np.concatenate([of_slice[:-1] for of_slice in measurements]), _slack(measurements))

    def decide(self, measurements: Mapping[str, Doubles], state: Any) -> Decision:
        """Keep the floors, then the remaining blocks with the largest values."""
        names = list(self._shapes)
        kept = {name: floor_units(self._pattern, self._shapes[name], self._budget.floor_of(name)) for name in names}
        descending = {name: np.sort(measurements[name][:-1])[::-1] for name in names}
        remaining_values = [descending[name][kept[name] :] for name in names]
        total = sum(count_units(self._pattern, self._shapes[name]) for name in names)
        remaining_budget = self._budget.kept_units(total, self._pattern) - sum(kept.values())
        layer_of = np.repeat(np.arange(len(names)), [len(values) for values in remaining_values])
        largest = np.argsort(-np.concatenate(remaining_values), kind="stable")[:remaining_budget]
        added_blocks = np.bincount(layer_of[largest], minlength=len(names))
        kept = {name: kept[name] + int(number) for name, number in zip(names, added_blocks, strict=True)}
        kept_score = exact_sum(float(descending[name][: kept[name]].sum()) for name in names)
        gap = relative_gap(kept_score, _slack(measurements.values()))
        return Decision(_patterns(self._pattern, self._shapes, kept), gap)


def _slack(measurements: Iterable[Doubles]) -> float:
    return exact_sum(float(measurement[-1]) for measurement in measurements)


def _patterns(pattern: Pattern, shapes: Shapes, kept: Mapping[str, int]) -> dict[str, Pattern]:
    assert isinstance(pattern, (Block, Unstructured))
    return {name: with_kept_units(pattern, kept[name], count_units(pattern, shape)) for name, shape in shapes.items()}
