"""Maps the exception that fails a shard to the error code and message of the shard's report.

A shard solves rows of a tensor, or writes a file of an output.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import masksmith as ms
from masksmith.scores import StatisticError
from masksmith_state.errors import ChangedSourceError, DamagedBlobError, InvalidLocationError, NoRootError
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.errors import Code, TensorError
from masksmith_wire.specification import SpecificationError

from .output.work import ForeignOutputError, ShardFailedError
from .stages.allocate import BudgetError
from .stages.load import DamagedUploadError, UploadMissingError
from .stages.measure import PreviousMissingError
from .stages.memory import InsufficientMemoryError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard fails.

    Attributes:
        code: Error code.
        reason: Reason; it follows the name of the tensor in the message of the report, so "its" is the tensor's.
        index: Index of the invalid entry in the tensor or its statistic, or None.
        hint: What the user can do about it, or None.
    """

    code: Code
    reason: str
    index: Sequence[int] | None = None
    hint: str | None = None

    def __str__(self) -> str:
        where = "" if self.index is None else f" at {list(self.index)}"
        return f"{self.reason}{where}" + ("" if self.hint is None else f"; {self.hint}")


def _with_code(code: Code, reason: str = "") -> Callable[[Exception], Failure]:
    """Return a handler that reports this code, with this reason or, if it is empty, the exception's text."""
    return lambda error: Failure(code, reason or str(error))


def _with_index(code: Code) -> Callable[[ms.ScoresError], Failure]:
    """Return a handler that reports this code, and the index in the tensor or its statistic."""
    return lambda error: Failure(code, error.reason, error.index, error.hint)


def _invalid_update(error: ms.UpdateError) -> Failure:
    row = "" if error.row is None else f" (row {error.row})"
    return Failure(Code.INVALID_CALIBRATION, error.reason + row)


def _no_root(error: NoRootError) -> Failure:
    return Failure(Code.ROOT_NOT_FOUND, f"{error} of this worker; give it the same roots as the service")


def _previous_missing(error: PreviousMissingError) -> Failure:
    return Failure(Code.UPLOAD_NOT_FOUND if error.is_upload else Code.RESULT_NOT_FOUND, str(error))


def _upload_damaged(error: DamagedUploadError) -> Failure:
    upload = "its upload"
    if error.tensor is not None:
        upload = f"the budget cannot be divided: the upload of tensor {error.tensor!r}"
    return Failure(Code.UPLOAD_DAMAGED, f"{upload} was damaged in the store and was set aside; send it again")


_HANDLERS: Mapping[type[Exception], Callable[[Any], Failure]] = {
    SpecificationError: lambda error: Failure(error.code, str(error)),
    BudgetError: lambda error: Failure(Code.INVALID_BUDGET, f"the budget cannot be met: {error}"),
    StatisticError: _with_index(Code.INVALID_CALIBRATION),
    ms.ScoresError: _with_index(Code.INVALID_SCORES),
    ms.PatternError: _with_code(Code.SOLVER_REFUSED),
    ms.SolverError: _with_code(Code.SOLVER_REFUSED),
    ms.InfeasibleError: _with_code(Code.SOLVER_REFUSED),
    ms.WeightError: lambda error: Failure(Code.INVALID_SCORES, error.reason),
    ms.UpdateError: _invalid_update,
    InsufficientMemoryError: _with_code(Code.INSUFFICIENT_MEMORY),
    ms.MissingExtraError: _with_code(Code.EXTRA_MISSING),
    UploadMissingError: _with_code(Code.UPLOAD_NOT_FOUND, "its upload no longer exists; send it again"),
    ChangedSourceError: _with_code(Code.REFERENCE_CHANGED),
    NoRootError: _no_root,
    InvalidLocationError: _with_code(Code.INVALID_REFERENCE),
    PreviousMissingError: _previous_missing,
    DamagedUploadError: _upload_damaged,
}
FAILURES: tuple[type[Exception], ...] = tuple(_HANDLERS)
"""Exceptions that fail any shard without another attempt."""
OUTPUT_FAILURES: tuple[type[Exception], ...] = (
    ShardFailedError,
    ForeignOutputError,
    FileNotFoundError,
    DamagedBlobError,
)
"""Further exceptions that fail a shard without another attempt, if it writes a file of an output."""


def failure_report(error: Exception, tensor: PlannedTensor) -> ShardReport:
    """Make the report of a shard that was to solve rows of a tensor, from one of `FAILURES`."""
    failure = _failure(error)
    log.info("tensor %r has no mask: %s", tensor.name, failure)
    index = None if failure.index is None else list(failure.index)
    return ShardReport(error=TensorError(code=failure.code, message=f"tensor {tensor.name!r}: {failure}", index=index))


def output_failure_report(error: Exception, name: str) -> ShardReport:
    """Make the report of a shard that was to write the file `name`, from one of `FAILURES` or `OUTPUT_FAILURES`."""
    if isinstance(error, ShardFailedError):
        code, reason = error.error.code, error.error.message
    elif isinstance(error, ForeignOutputError):
        code, reason = Code.OUTPUT_NOT_EMPTY, str(error)
    elif isinstance(error, FileNotFoundError | DamagedBlobError):
        code, reason = (
            Code.RESULT_DAMAGED,
            "a mask or weight was deleted, damaged or replaced meanwhile; submit the job again",
        )
    else:
        failure = _failure(error)
        code, reason = failure.code, str(failure)
    log.info("file %r of the output is not written: %s", name, reason)
    return ShardReport(error=TensorError(code=code, message=f"file {name!r} is not written: {reason}"))


def _failure(error: Exception) -> Failure:
    """Apply the handler of the exception's class, or of its nearest base class that has one."""
    handler = next(_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS)
    return handler(error)
