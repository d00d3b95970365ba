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
    """A weight to update.

    Attributes:
        name: Name of the weight.
        dtype: Dtype of the weight in its file, as safetensors names it.
        layout: How the weight is made of matrices.
        pattern: The pattern of the mask.
        values: The weight's values; bfloat16 as float32.
        gram: Gram matrices of the weight's inputs.
    """

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
        method: Update method, with its options.
        solution: The solution of the weight's scores: `reconstruct` keeps its mask, `admm` starts from it.
        solver: Solver of the masks of `admm`.

    Returns:
        The solution with the mask of the updated weight; the updated weight's bytes, in the weight's dtype; and the
        report of the update.

    Raises:
        UpdateError: If the weight or a Gram matrix is invalid.
    """
    from masksmith.updates import by_layout

    # The values of a bfloat16 weight are float32 here, so the update cannot see the dtype that they are rounded to.
    rounded_to = "bfloat16" if weight.dtype == "BF16" else None
    options: dict[str, Any] = {"name": weight.name, "rounded_to": rounded_to, **method.options}
    solution, update = by_layout(
        weight.layout, method.name, weight.values, weight.gram, solution,
        pattern=weight.pattern, solver=solver, **options,
    )  # fmt: skip
    return solution, to_bytes(update.weight, weight.dtype), UpdateReport.of(update)
