"""What solves masks for `prune`: it takes tensors one by one and yields masks in the same order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .choice import ChosenTensor
from .tensors import Tensor


@dataclass(frozen=True, slots=True)
class TensorToSolve:
    """A tensor, its bytes, and what is chosen for it: layout and pattern."""

    chosen: ChosenTensor
    source: Tensor


@dataclass(frozen=True, slots=True)
class SolvedTensor:
    """A mask and what its certificate says.

    Attributes:
        name: The tensor's name.
        mask: True = kept, in the tensor's shape.
        certificate: `status`, `objective`, `upper_bound`, `gap`, `retained`, `kept`, `solver` and `solve_s`.
    """

    name: str
    mask: npt.NDArray[np.bool_]
    certificate: dict[str, Any]


Solve = Callable[[Iterator[TensorToSolve]], Generator[SolvedTensor]]
"""Takes the tensors that are left to solve and yields a mask for each, in their order; it may take some ahead."""
