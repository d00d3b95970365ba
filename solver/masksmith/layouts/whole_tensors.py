"""What needs the whole of a tensor in one worker, and how large such a tensor may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from masksmith.patterns import Pattern

from .dtypes import ITEM_BYTES

WHOLE_BYTES = 2**28
"""Largest tensor that goes to one worker whole, because its pattern cannot be solved in parts."""


class Update(Protocol):
    """A weight update, as far as it matters here."""

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether all rows of a tensor affect each other's weights."""


def binding(pattern: Pattern, update: Update | None = None, *, spectrum: bool = False) -> str | None:
    """Say what binds the whole of a tensor, so that one worker must have all of it; None if nothing does."""
    if pattern.shard_rows is None:
        return str(pattern)
    if update is not None and update.needs_whole_tensors:
        return str(update)
    return "spectrum" if spectrum else None


def oversize_reason(shape: Sequence[int], dtype: str, bound: str | None) -> str | None:
    """Say why a tensor is too large for what binds the whole of it, or None."""
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if bound is None or size <= WHOLE_BYTES:
        return None
    return (
        f"{bound} binds the whole tensor, and its {size} bytes are more than the {WHOLE_BYTES} that go to one worker; "
        f"use --local or the library"
    )
