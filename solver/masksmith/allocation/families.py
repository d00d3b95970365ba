"""What a layer tells about its scores, slice by slice, so that a budget can be shared out.

A family measures slices of whole rows, merges the slices of a layer, and decides from all layers' measures: either what
to measure next (the threshold's next bits) or how much each layer keeps. Any process may measure any slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from masksmith._errors import ScoresError
from masksmith._tensors import Source, flat_index
from masksmith.kernels.scan import scan
from masksmith.patterns import NM, Block, Budget, Pattern
from masksmith.whole_tensor.reader import why_bad

Doubles = npt.NDArray[np.float64]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Decision:
    """How a budget was shared out.

    Attributes:
        patterns: Each layer's own pattern.
        gap: How much more any other way to share it out could keep at most, as a share of the bound; 0.0 is a proof.
    """

    patterns: Mapping[str, Pattern]
    gap: float


class Family(Protocol):
    """What can be measured and decided under one kind of pattern; `state` is what earlier measures decided."""

    @property
    def unit(self) -> int:
        """Rows of a slice are a multiple of this, the last slice apart."""
        ...

    def measure(self, scores: Any, state: Any, name: str) -> Doubles:
        """Measure some rows of a layer's scores, `[rows, in, *kernel]`: a vector."""
        ...

    def merge(self, measures: Sequence[Doubles]) -> Doubles:
        """Put the measures of a layer's slices together, in their order."""
        ...

    def decide(self, layers: Mapping[str, Doubles], state: Any) -> Any | Decision:
        """Decide from what all layers measured: the next state, or the end."""
        ...


def measure_from(family: Family, scores: Any, state: Any, name: str, first: int) -> Doubles:
    """Measure rows that begin at row `first` of their layer.

    Raises:
        ScoresError: As `measure` does, with the index that a bad score has in the layer.
    """
    try:
        return family.measure(scores, state, name)
    except ScoresError as error:
        if error.index is None:
            raise
        raise ScoresError(error.reason, (error.index[0] + first, *error.index[1:]), name) from None


def check(scores: Any, name: str) -> None:
    """Look for bad scores in some rows.

    Raises:
        ScoresError: At the first NaN, infinite or negative one; its index counts from the first of these rows.
    """
    source = Source(scores, "in", name)
    rows = source.rows(0, source.shape[0])
    bad, _ = scan(rows)
    if bad >= 0:
        raise ScoresError(why_bad(float(rows.flat[bad])), flat_index(bad, source.shape, "in"), name)


def family_of(pattern: Pattern, budget: Budget, shapes: Shapes, *, double: bool = False) -> Family:
    """Find the family of a pattern, for layers of these shapes.

    Args:
        pattern: An n:m pattern, of which every n is tried; or blocks or entries, of which the largest are kept.
        budget: What may be kept.
        shapes: Of the layers, by name.
        double: Whether any layer's scores are float64.

    Raises:
        PatternError: If the budget cannot be met, or has nothing to share out.
    """
    from .curves import Curves
    from .thresholds import BlockThreshold, EntryThreshold

    budget.check(shapes, pattern)
    if isinstance(pattern, NM):
        return Curves(pattern, budget, shapes)
    if isinstance(pattern, Block):
        return BlockThreshold(pattern, budget, shapes)
    return EntryThreshold(pattern, budget, shapes, double)
