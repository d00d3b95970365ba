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
    from masksmith.updates import admm_by_layout, reconstruct_by_layout

    rounded_to = "bfloat16" if weight.dtype == "BF16" else None
    options = {"name": weight.name, "rounded_to": rounded_to, **method.options}
    if method.name == "reconstruct":
        update = reconstruct_by_layout(weight.layout, weight.values, solution.mask, weight.gram, **options)
    else:
        options["solver"] = solver
        update = pruned = admm_by_layout(
            weight.layout, weight.values, weight.gram, weight.pattern, start=solution, **options
        )
        solution = pruned.solution
    report = UpdateReport(
        error=update.error,
        masked_error=update.masked_error,
        energy=update.energy,
        update_s=update.stats["update_s"],
        solves=update.stats.get("solves"),
    )
    return solution, to_bytes(update.weight, weight.dtype), report
