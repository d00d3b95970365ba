"""Store stage: stores results under a key made of everything that determines them, and finds stored ones by it."""

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
    """Read the report of a stored result; None if there is none, or any part of it is damaged."""
    try:
        report = ShardReport.model_validate_json(work.store.get_sealed(result_report_name(key)))
        # Mask and weights may be damaged, or may have been set aside for that, although the report exists.
        work.store.verify(result_name(key), report.mask_digest)
        if work.specification.update is not None:
            work.store.verify(weights_name(key), report.weights_digest)
    except (FileNotFoundError, DamagedBlobError):
        return None
    return report.model_copy(update={"remembered": True})


def store_result(
    store: BlobStore, key: str, mask: npt.NDArray[np.bool_], updated: UpdatedShard | None, report: ShardReport
) -> ShardReport:
    """Write updated weights (if any), mask, and last the report: if it exists, the others exist.

    No report is stored for a result that a time limit ended, so that other jobs do not reuse it.

    Returns:
        The report, with the digests of what was written.
    """
    weights_digest = None if updated is None else store.put(weights_name(key), updated.data)
    mask_digest = store.put(result_name(key), masks.pack(mask).tobytes())
    report = report.model_copy(update={"mask_digest": mask_digest, "weights_digest": weights_digest})
    if report.status != ms.Status.TIME_LIMIT.value:
        store.put_sealed(result_report_name(key), report.model_dump_json().encode())
    return report
