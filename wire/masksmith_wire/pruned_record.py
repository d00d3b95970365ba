"""Members of `masksmith.json`, the record of a pruned checkpoint, that client and workers build in the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .measures import UpdateReport
from .totals import exact_sum, total_gap
from .updates import UpdateMethod

PACKAGES = ("masksmith", "numpy", "torch", "numba", "ortools")


def versions() -> dict[str, str]:
    """Return the versions of those `PACKAGES` that are installed; masks and weights depend on them."""
    installed: dict[str, str] = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def totals(tensors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the figures of a record's tensors; figures of masks are summed over the masked tensors only.

    `density` is the kept share of the masked tensors' parameters, and `zeros` the pruned share of all parameters. A sum
    of objectives or bounds that exceeds float64 is None.

    Args:
        tensors: The record's document of each tensor.
    """
    masked_tensors = [tensor for tensor in tensors if tensor["masked"]]
    masked_parameters = sum(math.prod(tensor["shape"]) for tensor in masked_tensors)
    objective, bound = (exact_sum(tensor[key] for tensor in masked_tensors) for key in ("objective", "upper_bound"))
    kept = sum(tensor["kept"] for tensor in masked_tensors)
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    return {
        "tensors": len(tensors),
        "masked": len(masked_tensors),
        "optimal": sum(tensor["status"] == "optimal" for tensor in masked_tensors),
        "parameters": parameters,
        "masked_parameters": masked_parameters,
        "kept": kept,
        "density": kept / masked_parameters if masked_parameters else None,
        "zeros": (masked_parameters - kept) / parameters if parameters else None,
        "objective": objective if math.isfinite(objective) else None,
        "upper_bound": bound if math.isfinite(bound) else None,
        "gap": total_gap((tensor["objective"], tensor["upper_bound"]) for tensor in masked_tensors) or 0.0,
    }


def update_record(method: UpdateMethod, report: UpdateReport) -> dict[str, Any]:
    """Return the record's document of a tensor's update: the method, and the members of the report."""
    return {"method": str(method), **report.model_dump(exclude_none=True)}
