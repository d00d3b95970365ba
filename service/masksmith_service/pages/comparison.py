"""Compares two jobs layer by layer, and two masks of a layer entry by entry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from masksmith.layouts import ITEM_BYTES
from masksmith_service.layers.reader import MaskedLayer
from masksmith_service.layers.windows import rows_per_band
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.model import JobRecord
from masksmith_wire.documents import Job, TensorReport


@dataclass(frozen=True)
class Side:
    """A layer in one job.

    Attributes:
        report: What the job's document says about the layer.
        stored_bytes: Size of the layer's kept values and of its mask, which has one bit per entry and rows padded to
            whole bytes; None if the job has no complete mask of the layer.
    """

    report: TensorReport
    stored_bytes: int | None


@dataclass(frozen=True)
class Pair:
    """A layer in the two compared jobs.

    Attributes:
        name: Name of the layer.
        a: The layer in job A; None if that job does not have it.
        b: The layer in job B; None if that job does not have it.
        dense_bytes: Size of the layer without a mask: in job A if it has the layer, else in job B.
    """

    name: str
    a: Side | None
    b: Side | None
    dense_bytes: int

    @property
    def difference(self) -> float | None:
        """Difference of the retained shares, B minus A; None unless both are known."""
        if self.a is None or self.b is None or self.a.report.retained is None or self.b.report.retained is None:
            return None
        return self.b.report.retained - self.a.report.retained

    @property
    def is_comparable(self) -> bool:
        """Whether both jobs have a complete mask of the layer, and the layer has the same shape in both."""
        # A report has a status only if all shards of the layer have succeeded.
        return (
            self.a is not None
            and self.b is not None
            and None not in (self.a.report.status, self.b.report.status)
            and self.a.report.shape == self.b.report.shape
        )


@dataclass(frozen=True)
class MaskOverlap:
    """Overlap of two masks of a layer, as shares of the layer's entries.

    Attributes:
        both: Kept by both masks.
        only_a: Kept by the first mask alone.
        only_b: Kept by the second mask alone.
    """

    both: float
    only_a: float
    only_b: float


def pair_layers(a: Job, a_record: JobRecord, b: Job, b_record: JobRecord) -> list[Pair]:
    """Match the layers of two jobs by name: in the order of the first job, then those that only the second has."""
    sides = [_sides(a, a_record), _sides(b, b_record)]
    dense_bytes = {
        tensor.name: tensor.shape[0] * tensor.row_bytes
        for record in (b_record, a_record)  # A last: if both have the layer, A's size is stored.
        for tensor in record.plan.tensors
    }
    names = dict.fromkeys([*sides[0], *sides[1]])
    return [Pair(name, sides[0].get(name), sides[1].get(name), dense_bytes[name]) for name in names]


def _sides(job: Job, record: JobRecord) -> Mapping[str, Side]:
    item_bytes = {tensor.name: ITEM_BYTES[tensor.dtype] for tensor in record.plan.tensors}
    return {report.name: Side(report, _stored_bytes(report, item_bytes[report.name])) for report in job.tensors}


def _stored_bytes(report: TensorReport, item_bytes: int) -> int | None:
    if report.density is None:
        return None
    rows, cols = report.shape[0], math.prod(report.shape[1:])
    return round(report.density * rows * cols) * item_bytes + rows * -(-cols // 8)


def compare_masks(a: MaskedLayer, b: MaskedLayer, store: BlobStore) -> MaskOverlap:
    """Compare two masks of the same shape, a few rows at a time."""
    height, width = a.shape
    step = rows_per_band(width, 1)
    both = only_a = only_b = 0
    for first in range(0, height, step):
        rows = range(first, min(height, first + step))
        kept_a, kept_b = (layer.read_mask(store, rows, 0, width) for layer in (a, b))
        both += int(np.count_nonzero(kept_a & kept_b))
        only_a += int(np.count_nonzero(kept_a & ~kept_b))
        only_b += int(np.count_nonzero(kept_b & ~kept_a))
    return MaskOverlap(both / (height * width), only_a / (height * width), only_b / (height * width))
