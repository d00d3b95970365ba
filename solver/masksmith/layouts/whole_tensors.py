"""Whether a tensor must go to one worker as a whole, and whether it is too large for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from masksmith.patterns import Pattern

from .dtypes import ITEM_BYTES

WHOLE_BYTES = 2**28
"""Largest tensor that goes to one worker whole, because its pattern cannot be solved in parts."""


class UpdateNeeds(Protocol):
    """The property of weight updates that decides whether one worker needs whole tensors."""

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether all rows of a tensor affect each other's weights."""


def binding(pattern: Pattern, update: UpdateNeeds | None = None, *, spectrum: bool = False) -> str | None:
    """Return what requires that one worker gets the whole tensor (pattern, update or spectrum), or None."""
    if pattern.shard_rows is None:
        return str(pattern)
    if update is not None and update.needs_whole_tensors:
        return str(update)
    return "spectrum" if spectrum else None


def oversize_reason(shape: Sequence[int], dtype: str, bound: str | None) -> str | None:
    """Return why a tensor is too large for one worker, or None; `bound` is the result of `binding`."""
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if bound is None or size <= WHOLE_BYTES:
        return None
    return (
        f"{bound} binds the whole tensor, and its {size} bytes are more than the {WHOLE_BYTES} that go to one worker; "
        f"use --local or the library"
    )
