"""Updates weights in this process, as a worker of a service does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from masksmith.layouts import Layout
from masksmith.patterns import Pattern
from masksmith_wire.dtypes import to_bytes
from masksmith_wire.measures import UpdateReport
from masksmith_wire.updates import UpdateMethod


@dataclass(frozen=True, slots=True)
class WeightToUpdate:
    """A weight, how it is made of matrices, its pattern, and the Gram matrices of its inputs."""

    name: str
    dtype: str
    layout: Layout
    pattern: Pattern
    values: npt.NDArray[Any]
    gram: npt.NDArray[Any]


def update_weight(
    weight: WeightToUpdate, method: UpdateMethod, solution: Any, solver: str = "auto"
) -> tuple[Any, bytes, UpdateReport]:
    """Update a weight.

    Args:
        weight: The weight.
        method: Update method.
        solution: Its mask, which `reconstruct` keeps and `admm` starts from.
        solver: Solver of the masks of `admm`.

    Returns:
        The solution with the mask of the updated weight, its bytes in its dtype, and the errors.

    Raises:
        UpdateError: If weight or Gram matrix are invalid.
    """
    from masksmith.updates import by_layout

    rounded_to = "bfloat16" if weight.dtype == "BF16" else None
    options: dict[str, Any] = {"name": weight.name, "rounded_to": rounded_to, **method.options}
    solution, update = by_layout(
        weight.layout, method.name, weight.values, weight.gram, solution,
        pattern=weight.pattern, solver=solver, **options,
    )  # fmt: skip
    return solution, to_bytes(update.weight, weight.dtype), UpdateReport.of(update)
