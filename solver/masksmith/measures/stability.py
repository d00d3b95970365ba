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
        sad: Sum of absolute differences, `||mask - previous||_1`: the number of entries that differ (Zhou et al.,
            Learning N:M Fine-grained Structured Sparse Neural Networks, ICLR 2021).
        added: Number of entries that only the new mask keeps.
        dropped: Number of entries that only the previous mask keeps.
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
        previous: The earlier mask, an array or tensor like `mask`.

    Raises:
        ScoresError: If the shapes differ, or a mask is empty or of a dtype that is not supported.
    """
    reader, previous_reader = MatrixReader(mask, name="mask"), MatrixReader(previous, name="previous")
    if reader.shape != previous_reader.shape:
        shapes = f"{list(previous_reader.shape)} differs from the mask's {list(reader.shape)}"
        raise ScoresError(f"shape {shapes}", name="previous")
    added = dropped = entries = 0
    for new, old in zip(strips(reader), strips(previous_reader), strict=True):
        added += int(np.count_nonzero(new & ~old))
        dropped += int(np.count_nonzero(old & ~new))
        entries += new.size
    return Change(added + dropped, added, dropped, (added + dropped) / entries)
