"""What a layer reports of its scores, slice by slice, so that a budget can be shared out.

A family measures slices of whole rows, merges the slices of a layer, and decides from all layers' measures: either what
to measure next (the threshold's next bits) or how much each layer keeps. Any process may measure any slice.
"""

from __future__ import annotations

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
