"""Chooses the allocator for a pattern, and measures slices of layers with it."""

from __future__ import annotations

from typing import Any

from masksmith._errors import ScoresError
from masksmith.patterns import NM, Block, Budget, Pattern

from .allocator import Allocator, Doubles, Shapes
from .curves import Curves
from .thresholds import BlockThreshold, EntryThreshold


def measure_from(allocator: Allocator, scores: Any, state: Any, name: str, first: int) -> Doubles:
    """Measure a slice of the layer `name`, as `Allocator.measure` does.

    Args:
        allocator: The allocator.
        scores: Scores of the slice.
        state: As for `Allocator.measure`.
        name: Name of the layer.
        first: First row of the slice, as a row of the layer.

    Raises:
        ScoresError: As `Allocator.measure`; but the index of the invalid score is that in the layer, not in the slice.
    """
    try:
        return allocator.measure(scores, state, name)
    except ScoresError as error:
        if error.index is None:
            raise
        raise error.at((error.index[0] + first, *error.index[1:])) from None


def allocator_for(pattern: Pattern, budget: Budget, shapes: Shapes, *, double: bool = False) -> Allocator:
    """Return the allocator for a pattern and layers of these shapes.

    Args:
        pattern: An n:m pattern, whose n is chosen per layer; blocks without balance; or unstructured.
        budget: The budget to distribute.
        shapes: Shapes of the layers, by name.
        double: Whether any layer's scores are float64.

    Raises:
        PatternError: If the budget cannot be met, or does not apply to the pattern.
    """
    budget.check(shapes, pattern)
    if isinstance(pattern, NM):
        return Curves(pattern, budget, shapes)
    if isinstance(pattern, Block):
        return BlockThreshold(pattern, budget, shapes)
    return EntryThreshold(pattern, budget, shapes, double)
