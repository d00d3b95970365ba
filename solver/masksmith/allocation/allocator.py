"""The protocol of budget allocators: how a budget is distributed over layers from measurements of their slices.

An allocator measures slices of whole rows, merges the measurements of a layer's slices, and decides from those of all
layers: either what to measure next (such as the next bits of a threshold) or how much each layer keeps. Slices may be
measured by different processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from masksmith.patterns import Pattern

Doubles = npt.NDArray[np.float64]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Decision:
    """The decision of an allocator: how the budget is distributed.

    Attributes:
        patterns: Pattern of each layer, by the layer's name.
        gap: Relative optimality gap of the score kept; 0.0 proves optimality.
    """

    patterns: Mapping[str, Pattern]
    gap: float


def relative_gap(kept_score: float, slack: float) -> float:
    """Return the relative optimality gap of a kept score, if no distribution keeps more than `kept_score + slack`."""
    if slack <= 0:
        return 0.0
    upper_bound = kept_score + slack
    return slack / upper_bound if math.isfinite(upper_bound) else 1.0


class Allocator(Protocol):
    """Measurements and decisions for one kind of pattern; `state` is what `decide` returned last, None at first."""

    @property
    def row_multiple(self) -> int:
        """The number of rows of every slice of a layer, except the last, is a multiple of this."""
        ...

    def measure(self, scores: Any, state: Any, name: str) -> Doubles:
        """Return, as a vector, the measurements of a slice: `scores` `[rows, in, *kernel]` of the layer `name`."""
        ...

    def merge(self, measurements: Sequence[Doubles]) -> Doubles:
        """Combine the measurements of a layer's slices, in their order."""
        ...

    def decide(self, measurements: Mapping[str, Doubles], state: Any) -> Any | Decision:
        """Return the next state, or the final decision, from the merged measurements of all layers."""
        ...
