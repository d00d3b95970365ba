"""Lists of layers for the web pages: search, sorting and pagination."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from masksmith_wire.documents import Job, TensorReport

LAYERS_PER_PAGE = 200

_WORST_FIRST = ("time_limit", "feasible", "optimal", None)
"""Statuses in the order in which the column `status` is sorted; failed layers come before all of them.

None is the status of a layer that has no mask.
"""
_SORT_KEYS: Mapping[str, Callable[[TensorReport], float | None]] = {
    "shape": lambda layer: math.prod(layer.shape),
    "retained": lambda layer: layer.retained,
    "gap": lambda layer: layer.gap,
    "kept": lambda layer: layer.density,
    "status": lambda layer: -1 if layer.error else _WORST_FIRST.index(layer.status),
    "time": lambda layer: layer.solve_s,
}


@dataclass(frozen=True)
class LayerPage:
    """A page of a list of layers.

    Attributes:
        rows: The layers on this page.
        total: Number of layers on all pages.
        page: Number of this page, from 1.
        pages: Number of pages, at least 1.
        sort: Name of the column by which the list is sorted; any other text if it is in the job's order.
        descending: Whether the largest value comes first.
    """

    rows: Sequence[TensorReport]
    total: int
    page: int
    pages: int
    sort: str
    descending: bool


def list_layers(job: Job, text: str, sort: str, page: int, *, descending: bool) -> LayerPage:
    """Search and sort a job's layers, and return one page of them.

    Args:
        job: The job.
        text: Text that the names of the listed layers contain; case and surrounding spaces do not matter.
        sort: Name of a column; any other text leaves the layers in the job's order. Layers without a value come last.
        page: Number of the page, from 1; a number beyond the last page stands for the last page.
        descending: Whether the largest value comes first.
    """
    rows = [layer for layer in job.tensors if text.strip().lower() in layer.name.lower()]
    if sort == "name":
        rows.sort(key=lambda layer: layer.name, reverse=descending)
    elif sort in _SORT_KEYS:
        pairs = [(_SORT_KEYS[sort](layer), layer) for layer in rows]
        with_value = [(value, layer) for value, layer in pairs if value is not None]
        with_value.sort(key=lambda pair: pair[0], reverse=descending)
        rows = [layer for _, layer in with_value] + [layer for value, layer in pairs if value is None]
    pages = max(1, -(-len(rows) // LAYERS_PER_PAGE))
    page = min(page, pages)
    return LayerPage(
        rows[(page - 1) * LAYERS_PER_PAGE : page * LAYERS_PER_PAGE], len(rows), page, pages, sort, descending
    )
