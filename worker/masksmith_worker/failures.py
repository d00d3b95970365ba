"""Failures: which error code and message a shard gets for what was raised in one of its stages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import masksmith as ms
from masksmith_state.jobs.model import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.errors import Code, TensorError
from masksmith_wire.specification import SpecificationError

from .stages.allocate import BudgetError
from .stages.load import DamagedUploadError, UploadGoneError
from .stages.measure import PreviousGoneError
from .stages.score import CalibrationError

log = logging.getLogger(__name__)

Fault = tuple[Code, str, Sequence[int] | None]
"""Error code, reason, and the index of the tensor's entry at fault."""


def _as(code: Code, reason: str = "") -> Callable[[Exception, Shard], Fault]:
    """Report a fixed code, with the exception's own text unless a reason is given."""
    return lambda error, shard: (code, reason or str(error), None)


def _bad_score(error: ms.ScoresError, shard: Shard) -> Fault:
    index = None if error.index is None else [error.index[0] + shard.first, *error.index[1:]]
    return Code.INVALID_SCORES, error.reason, index


def _bad_update(error: ms.UpdateError, shard: Shard) -> Fault:
    row = "" if error.row is None else f" (row {error.row + shard.first})"
    return Code.INVALID_CALIBRATION, error.reason + row, None


_FAULTS: Mapping[type[Exception], Callable[[Any, Shard], Fault]] = {
    SpecificationError: lambda error, shard: (error.code, str(error), None),
    BudgetError: lambda error, shard: (Code.INVALID_BUDGET, f"the budget cannot be shared out: {error}", None),
    CalibrationError: lambda error, shard: (Code.INVALID_CALIBRATION, error.reason, error.index),
    ms.ScoresError: _bad_score,
    ms.PatternError: _as(Code.SOLVER_REFUSED),
    ms.SolverError: _as(Code.SOLVER_REFUSED),
    ms.InfeasibleError: _as(Code.SOLVER_REFUSED),
    ms.UpdateError: _bad_update,
    ms.MissingExtraError: _as(Code.EXTRA_MISSING),
    UploadGoneError: _as(Code.UPLOAD_NOT_FOUND, "its upload is gone; send it again"),
    PreviousGoneError: _as(Code.UPLOAD_NOT_FOUND, "its previous mask is gone; leave previous out"),
    DamagedUploadError: _as(
        Code.UPLOAD_DAMAGED, "its upload was damaged in the store and has been deleted; send it again"
    ),
}
FAILURES = tuple(_FAULTS)
"""What fails a shard; anything else is a crash, and the shard is tried again."""


def failure_report(error: Exception, tensor: PlannedTensor, shard: Shard) -> ShardReport:
    """Make the report of a shard that one of `FAILURES` ended."""
    fault = next(_FAULTS[kind] for kind in type(error).__mro__ if kind in _FAULTS)
    code, reason, index = fault(error, shard)
    where = "" if index is None else f" at {list(index)}"
    log.info("tensor %r has no mask: %s%s", tensor.name, reason, where)
    message = f"tensor {tensor.name!r}: {reason}{where}"
    return ShardReport(error=TensorError(code=code, message=message, index=None if index is None else list(index)))
