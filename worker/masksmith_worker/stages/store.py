"""Store stage: results under a key of everything that determines them, so that no shard is solved twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import masksmith as ms
from masksmith_state.blobs.store import BlobStore, result_name, result_report_name, weights_name
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire import masks

from .update import UpdatedShard
from .work import ShardWork


def load_result(work: ShardWork, key: str) -> ShardReport | None:
    """Read the report of a stored result; None if there is none."""
    # Mask and weights may have been deleted although the report exists.
    blobs = [result_name(key)] if work.specification.update is None else [result_name(key), weights_name(key)]
    if any(work.store.size(name) is None for name in blobs):
        return None
    try:
        report = ShardReport.model_validate_json(work.store.get(result_report_name(key)))
    except FileNotFoundError:
        return None
    return report.model_copy(update={"remembered": True})


def store_result(
    store: BlobStore, key: str, mask: npt.NDArray[np.bool_], updated: UpdatedShard | None, report: ShardReport
) -> None:
    """Write updated weights (if any), mask, and last the report: if it exists, the others exist.

    No report is stored for a result that a time limit ended, so that other jobs do not reuse it.
    """
    if updated is not None:
        store.put(weights_name(key), updated.data)
    store.put(result_name(key), masks.pack(mask).tobytes())
    if report.status != ms.Status.TIME_LIMIT.value:
        store.put(result_report_name(key), report.model_dump_json().encode())
