"""Fill: the share of a pattern's capacity that a mask keeps."""

from __future__ import annotations

from typing import Any

from masksmith._tensors import MatrixReader
from masksmith.patterns import Pattern, capacity
from masksmith.patterns.grammar import read_pattern

from .counts import count


def fill(mask: Any, pattern: Pattern | str) -> float:
    """Return `kept / capacity`; below 1 if a heuristic solver or an at-most pattern keeps fewer entries.

    Args:
        mask: Bool array or tensor, True = kept, allowed by the pattern.
        pattern: Pattern of allowed masks.
    """
    parsed = read_pattern(pattern)
    return count(mask).kept / capacity(parsed, MatrixReader(mask, name="mask").shape)
