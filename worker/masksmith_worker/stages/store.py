"""Store stage: writes the result of a shard to the store under a key, and looks up stored results by their keys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import masksmith as ms
from masksmith_state.blobs.names import result_name, result_report_name, weights_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire import masks

from .update import UpdatedShard
from .work import ShardWork


def load_result(work: ShardWork, key: str) -> ShardReport | None:
    """Read the report of a stored result, marked as `remembered`; None if a part of it is missing or damaged."""
    try:
        report = ShardReport.model_validate_json(work.store.get_sealed(result_report_name(key)))
        # Although the report exists, mask or weights may be damaged, or missing because damaged blobs are set aside.
        work.store.verify(result_name(key), report.mask_digest)
        if work.specification.update is not None:
            work.store.verify(weights_name(key), report.weights_digest)
    except (FileNotFoundError, DamagedBlobError):
        return None
    return report.model_copy(update={"remembered": True})


def store_result(
    store: BlobStore, key: str, mask: npt.NDArray[np.bool_], updated: UpdatedShard | None, report: ShardReport
) -> ShardReport:
    """Write updated weights (if any) and mask, and only after them the report.

    A report with the status `time_limit` is not stored: its result has a key of its own, which no other job looks up.

    Returns:
        The report, with the digests of what was written.
    """
    weights_digest = None if updated is None else store.put(weights_name(key), updated.data)
    mask_digest = store.put(result_name(key), masks.pack(mask).tobytes())
    report = report.model_copy(update={"mask_digest": mask_digest, "weights_digest": weights_digest})
    if report.status != ms.Status.TIME_LIMIT.value:
        store.put_sealed(result_report_name(key), report.model_dump_json().encode())
    return report
