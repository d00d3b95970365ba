"""The interface of solvers for `prune`: a function that takes tensors and yields their masks in the same order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_client.submission.statistics import Statistic
from masksmith_client.submission.streamed_tensor import StreamedTensor

from .choice import ChosenTensor
from .tensors import Tensor


@dataclass(frozen=True, slots=True)
class TensorToSolve:
    """A tensor to mask, with the data that its mask is computed from.

    Attributes:
        chosen: Its name, layout and pattern.
        source: The tensor from which its values are read.
        statistic: The statistic that its scores are computed from, besides its values; None if they need none.
        gram: Gram matrix of its inputs, for the update of its weights; None without an update.
    """

    chosen: ChosenTensor
    source: Tensor
    statistic: Statistic | None = None
    gram: StreamedTensor | None = None

    @property
    def data_bytes(self) -> int:
        """Size of its values, its statistic and its Gram matrix."""
        statistic_bytes = 0 if self.statistic is None else self.statistic.tensor.data_bytes
        return self.source.data_bytes + statistic_bytes + (0 if self.gram is None else self.gram.data_bytes)


@dataclass(frozen=True, slots=True)
class SolvedTensor:
    """A mask, its certificate, and the updated weights if the run updates any.

    Attributes:
        name: The tensor's name.
        mask: True = kept, in the tensor's shape.
        certificate: `status`, `objective`, `upper_bound`, `gap`, `retained`, `density`, `kept`, `solver` and `solve_s`;
            also `update`, if the weights are updated.
        updated_bytes: The updated weights, in the tensor's dtype; None without an update.
    """

    name: str
    mask: npt.NDArray[np.bool_]
    certificate: dict[str, Any]
    updated_bytes: bytes | bytearray | None = None


Solve = Callable[[Iterator[TensorToSolve]], Generator[SolvedTensor]]
"""Takes the tensors to solve and yields a mask for each, in the same order; it may read some tensors in advance."""
