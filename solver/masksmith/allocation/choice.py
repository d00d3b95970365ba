"""Selects the family that distributes a budget under a pattern, and measures slices of layers."""

from __future__ import annotations

from typing import Any

from masksmith._errors import ScoresError
from masksmith.patterns import NM, Block, Budget, Pattern

from .curves import Curves
from .family import Doubles, Family, Shapes
from .thresholds import BlockThreshold, EntryThreshold


def measure_from(family: Family, scores: Any, state: Any, name: str, first: int) -> Doubles:
    """Measure rows that begin at row `first` of their layer.

    Raises:
        ScoresError: As `measure` does, with the index of an invalid score in the layer.
    """
    try:
        return family.measure(scores, state, name)
    except ScoresError as error:
        if error.index is None:
            raise
        raise ScoresError(error.reason, (error.index[0] + first, *error.index[1:]), name) from None


def family_of(pattern: Pattern, budget: Budget, shapes: Shapes, *, double: bool = False) -> Family:
    """Return the family of a pattern, for layers of these shapes.

    Args:
        pattern: An n:m pattern, of which every n is tried; or blocks or entries, of which the largest are kept.
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
