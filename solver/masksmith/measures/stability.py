"""Stability: the number of entries that differ between two masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import MatrixReader

from .counts import strips


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two masks.

    Attributes:
        sad: Sum of absolute differences, `||mask - previous||_1`: the entries that differ (Zhou et al., Learning N:M
            Fine-grained Structured Sparse Neural Networks, ICLR 2021).
        added, dropped: Entries that are kept now only, or were kept before only.
        flip_rate: `sad / entries`, in [0, 1] (Hu et al., ICML 2024).
    """

    sad: int
    added: int
    dropped: int
    flip_rate: float


def change(mask: Any, previous: Any) -> Change:
    """Compare a mask with an earlier one of the same shape.

    Args:
        mask: Bool array or tensor, True = kept.
        previous: Likewise.

    Raises:
        ScoresError: If the shapes differ.
    """
    now, before = MatrixReader(mask, name="mask"), MatrixReader(previous, name="previous")
    if now.shape != before.shape:
        raise ScoresError(f"shape {list(before.shape)} differs from the mask's {list(now.shape)}", name="previous")
    added = dropped = entries = 0
    for new, old in zip(strips(now), strips(before), strict=True):
        added += int(np.count_nonzero(new & ~old))
        dropped += int(np.count_nonzero(old & ~new))
        entries += new.size
    return Change(added + dropped, added, dropped, (added + dropped) / entries)
