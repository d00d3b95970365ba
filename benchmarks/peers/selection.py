"""Which weights a peer may keep: n of every m along each row, or a share of a row or of a whole matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

Tensor = torch.Tensor


@dataclass(frozen=True)
class Groups:
    """N of every m entries of a row are kept."""

    n: int
    m: int

    def largest(self, scores: Tensor) -> Tensor:
        """Return the mask of the n largest scores of every m, for scores `[rows, cols]`."""
        return _largest(scores.reshape(len(scores), -1, self.m), self.n).view_as(scores)

    def largest_of_rows(self, scores: Tensor) -> Tensor:
        """Return the same mask: the groups of a row do not depend on other rows."""
        return self.largest(scores)


@dataclass(frozen=True)
class Share:
    """A share of a matrix is kept, rounded to a whole number of entries."""

    kept: float

    def largest(self, scores: Tensor) -> Tensor:
        """Return the mask of the largest scores of the matrix."""
        return _largest(scores.reshape(1, -1), round(self.kept * scores.numel())).view_as(scores)

    def largest_of_rows(self, scores: Tensor) -> Tensor:
        """Return the mask of the largest scores of each row."""
        return _largest(scores, round(self.kept * scores.shape[1]))


Selection = Groups | Share


def selection(pattern: str) -> Selection:
    """Read `"2:4"` or `"50%"`.

    Raises:
        ValueError: If the pattern has another form.
    """
    if match := re.fullmatch(r"(\d+):(\d+)", pattern):
        return Groups(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"([\d.]+)%", pattern):
        return Share(float(match[1]) / 100)
    raise ValueError(f"{pattern!r} is neither n:m nor a share")


def _largest(scores: Tensor, count: int) -> Tensor:
    """Mask the `count` largest entries along the last dimension."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.scatter_(-1, scores.topk(count, dim=-1).indices, value=True)
