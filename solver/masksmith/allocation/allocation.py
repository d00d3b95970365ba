"""`allocate`: distributes a budget over the layers of a model, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from masksmith._tensors import MatrixReader, is_row_source
from masksmith.patterns import Budget, Pattern, matrix_shape
from masksmith.patterns.grammar import read_pattern

from .allocator import Allocator, Decision, Doubles
from .choice import allocator_for, measure_from

SLICE_ENTRIES = 2**22
"""Largest number of entries that are measured at a time, unless a slice of minimum height has more."""


@dataclass(frozen=True)
class Allocation:
    """A distribution of a budget; `patterns` is an argument for `solve_many`.

    Attributes:
        patterns: Pattern of each layer.
        gap: Relative optimality gap of the score kept; 0.0 proves that no distribution is better.
    """

    patterns: Mapping[str, Pattern]
    gap: float


def allocate(
    scores: Mapping[str, Any],
    pattern: Pattern | str,
    budget: Budget | float | str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Allocation:
    """Distribute one density for a whole model over its layers, so that the most score is kept.

    For unstructured and block patterns, one threshold for all layers decides what is kept; the result is optimal. For
    N:M patterns, dynamic programming chooses each layer's n; the result is optimal, too. If the problem is too large
    for this, a greedy search by the gain per entry chooses every n, and `gap` bounds the loss. Where masks have to be
    solved, for transposable or nested patterns, `gap` includes what these solves leave unproved.

    Args:
        scores: Tensors by name; each is looked up again in every pass, so a lazy mapping need hold only one at a time.
        pattern: An n:m pattern, whose n is chosen per layer; or a pattern that has the same density as the budget:
            unstructured, such as `"50%"`, or blocks without balance.
        budget: Density of all layers together; with minimum densities by glob, `ms.Budget("50%", {"*.query*": "25%"})`.
        on_progress: Called with (layers measured so far in this pass, all layers); an exception in it stops the call.

    Raises:
        PatternError: If the budget contradicts itself or the pattern, or rounds to zero kept entries.
        ScoresError: If a score is invalid.
    """
    parsed = read_pattern(pattern)
    shapes, is_double = {}, False
    for name, tensor in scores.items():
        reader = MatrixReader(tensor, "in", name)
        shapes[name], is_double = reader.shape, is_double or reader.is_double
    allocator = allocator_for(parsed, _parse_budget(budget), shapes, double=is_double)
    state: Any = None
    while not isinstance(state, Decision):
        measurements = {}
        for done, (name, tensor) in enumerate(scores.items(), 1):
            measurements[name] = _measure(allocator, tensor, shapes[name], state, name)
            if on_progress is not None:
                on_progress(done, len(scores))
        state = allocator.decide(measurements, state)
    return Allocation(state.patterns, state.gap)


def _parse_budget(budget: Budget | float | str) -> Budget:
    if isinstance(budget, str):
        return Budget.parse(budget)
    return budget if isinstance(budget, Budget) else Budget(budget)


def _measure(allocator: Allocator, tensor: Any, shape: tuple[int, ...], state: Any, name: str) -> Doubles:
    """Measure a layer, one slice of rows after the other."""
    rows, cols = matrix_shape(shape)
    step = max(1, SLICE_ENTRIES // (cols * allocator.row_multiple)) * allocator.row_multiple
    firsts = range(0, rows, step)
    reader = MatrixReader(tensor, "in", name) if is_row_source(tensor) else None
    slices = (
        tensor[first : first + step] if reader is None else reader.rows(first, min(first + step, rows))
        for first in firsts
    )
    return allocator.merge(
        [measure_from(allocator, part, state, name, first) for part, first in zip(slices, firsts, strict=True)]
    )
