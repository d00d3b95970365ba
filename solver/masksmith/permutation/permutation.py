"""The result of a search for a permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._solution import Solution
from masksmith._tensors import is_torch
from masksmith.patterns import PatternError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Permutation:
    """An order of the channels of each axis, and the gain; the order of an axis that was not searched is 0, 1, 2, ...

    The outputs of the previous layer must be permuted by `in_order`, the inputs of the next layer by `out_order`.

    Attributes:
        in_order: `[in]`: input channel `in_order[k]` moves to position k.
        out_order: `[out]`: output channel `out_order[k]` moves to position k.
        solution: The mask of the *permuted* scores, with its proof.
        kept_before, kept_after: Score kept in the original and in the new order; `kept_after` is never less.
        efficacy: `(lost before - lost after) / (lost before - lost unstructured)`, as in NVIDIA's apex: row-wise
            unstructured masks of the same density lose less score than the pattern; the order recovers this share of
            the difference. 0 if there is no difference.
        seconds: Seconds that `permute` took, compilation and solves included.
        cut_short: Whether the time limit ended the search; only then may an equal call give another order.
    """

    in_order: Ints
    out_order: Ints
    solution: Solution
    kept_before: float
    kept_after: float
    efficacy: float
    seconds: float
    cut_short: bool

    @property
    def gain(self) -> float:
        """Score gained, at least 0."""
        return self.kept_after - self.kept_before

    @property
    def mask(self) -> Any:
        """The mask in the original order of channels."""
        return self.restore(self.solution.mask)

    def apply(self, tensor: Any) -> Any:
        """Permute the channels of a tensor `[out, in, *kernel]` to the new order (a copy).

        Raises:
            PatternError: If the tensor has other numbers of channels.
        """
        return _take(tensor, self.out_order, self.in_order)

    def restore(self, tensor: Any) -> Any:
        """Permute the channels of a tensor back to the original order (a copy), the inverse of `apply`.

        Raises:
            PatternError: If the tensor has other numbers of channels.
        """
        return _take(tensor, np.argsort(self.out_order), np.argsort(self.in_order))


def _take(tensor: Any, rows: Ints, cols: Ints) -> Any:
    if not is_torch(tensor):
        tensor = np.asarray(tensor)
    if tuple(tensor.shape[:2]) != (len(rows), len(cols)):
        channels = f"[{len(rows)}, {len(cols)}] output and input channels"
        raise PatternError(f"shape {list(tensor.shape)} does not begin with the {channels} of this permutation")
    if not is_torch(tensor):
        return tensor[rows][:, cols]
    import torch

    return tensor[torch.from_numpy(rows).to(tensor.device)][:, torch.from_numpy(cols).to(tensor.device)]
