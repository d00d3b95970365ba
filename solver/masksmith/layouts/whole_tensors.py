"""Whether a tensor must go to one worker as a whole, and whether it is too large for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from masksmith.patterns import Pattern

from .dtypes import ITEM_BYTES

WHOLE_BYTES = 2**28
"""Size of the largest tensor that one worker may get as a whole, in bytes."""


class UpdateNeeds(Protocol):
    """What this module uses of a weight update: the property below, and the text that `str` returns."""

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether the update of a row depends on all rows of the tensor."""


def whole_tensor_needed_by(
    pattern: Pattern, update: UpdateNeeds | None = None, *, spectrum: bool = False
) -> str | None:
    """Return what needs the whole tensor in one worker: pattern, update or "spectrum"; None if rows can be divided.

    Args:
        pattern: The tensor's pattern.
        update: The update of its weights; None if there is none.
        spectrum: Whether its singular values are computed.
    """
    if pattern.shard_rows is None:
        return str(pattern)
    if update is not None and update.needs_whole_tensors:
        return str(update)
    return "spectrum" if spectrum else None


def oversize_reason(shape: Sequence[int], dtype: str, needed_by: str | None) -> str | None:
    """Return why a tensor is too large for the one worker that needs it whole, or None.

    Args:
        shape: Shape of the tensor.
        dtype: Its dtype.
        needed_by: Result of `whole_tensor_needed_by`; None if no worker needs the whole tensor.
    """
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if needed_by is None or size <= WHOLE_BYTES:
        return None
    return (
        f"{needed_by} needs the whole tensor in one worker, and its {size} bytes exceed the limit of {WHOLE_BYTES}; "
        f"use the library, or a command with --local"
    )
