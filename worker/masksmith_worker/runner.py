"""Solves one shard: read, score, solve, write, report. Knows records and store, but neither Celery nor HTTP."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

import masksmith as ms
from masksmith.solvers import by_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.store import result_name, result_report_name, weights_name
from masksmith_state.jobs.model import JobRecord, Lease, ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard, result_key
from masksmith_wire import masks
from masksmith_wire.digests import digest_document
from masksmith_wire.documents import MasksOptions
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.errors import Code, TensorError

from .lease import StoppedError
from .part_runner import PartRunner
from .stages.allocate import Budgets
from .stages.measure import PreviousGoneError, compare, measure
from .stages.placement import solver_on
from .stages.score import DamagedUploadError, Scoring, read_rows
from .stages.update import Updated, update_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """A shard and what it takes to solve it; `deadline` on the monotonic clock."""

    job: str
    tensor: PlannedTensor
    shard: Shard
    options: MasksOptions
    deadline: float | None

    @property
    def left_s(self) -> float | None:
        """What is left of the job's time limit, which all its shards share; a solver always gets a moment."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 1e-9)


class ShardRunner(PartRunner):
    """Solves shards of masks jobs."""

    @cached_property
    def references(self) -> BlobReferences:
        """Who holds what in the store."""
        return BlobReferences(self.records.redis, self.store)

    def failed(self, error: TensorError) -> ShardReport:
        """Make the report of a shard that failed."""
        return ShardReport(error=error)

    def work(self, lease: Lease, taken: float, check: Callable[[], None]) -> ShardReport:
        """Solve a shard."""
        job = lease.job
        record, shard = self.records.read(job), self.records.shard(job, lease.shard)
        if record is None or shard is None:
            raise StoppedError
        tensor, options = record.plan.tensors[shard.tensor], record.plan.options
        limit_s = options.time_limit_s
        deadline = None if limit_s is None else taken - lease.elapsed_s + limit_s
        work = _Work(job, tensor, shard, options, deadline)
        try:
            return compare(self.store, tensor, shard, self._solve_shared(work, record, lease, check))
        except PreviousGoneError:
            return _failure(Code.UPLOAD_NOT_FOUND, tensor, "its previous mask is gone; leave previous out", None)
        except DamagedUploadError as error:
            self.references.forget_upload(error.digest)
            reason = "its upload was damaged in the store and has been deleted; send it again"
            return _failure(Code.UPLOAD_DAMAGED, tensor, reason, None)

    def _solve_shared(self, work: _Work, record: JobRecord, lease: Lease, check: Callable[[], None]) -> ShardReport:
        """Solve a shard under the pattern that the job's budget gives its tensor, if there is a budget."""
        if work.options.budget is None:
            return self._solve_alone(work, check)
        budgets = Budgets(self.store, record.plan, lambda: self.records.shards(work.job), check)
        try:
            shared = budgets.share_out(lease.shard)
        except (ms.MasksmithError, FileNotFoundError) as error:
            return _failure(Code.INVALID_BUDGET, work.tensor, f"the budget cannot be shared out: {error}", None)
        own = shared.patterns[work.tensor.name]
        report = self._solve_alone(replace(work, options=work.options.model_copy(update={"pattern": own})), check)
        return report.model_copy(update={"pattern": own, "budget_gap": shared.gap})

    def _solve_alone(self, work: _Work, check: Callable[[], None]) -> ShardReport:
        solver = by_name(work.options.solver)
        key = result_key(work.tensor, work.shard, work.options, solver.name, solver.version)
        self._hold(work.job, key)
        updates = work.options.update is not None
        return self._remembered(key, updates=updates) or self._solve_anew(work, key, check)

    def _hold(self, job: str, key: str) -> None:
        # Before anybody looks whether it is there: what a job holds is not deleted.
        if not self.references.hold_result(job, key):
            raise StoppedError

    def _remembered(self, key: str, *, updates: bool) -> ShardReport | None:
        # The results themselves may have been deleted since.
        wanted = [result_name(key), weights_name(key)] if updates else [result_name(key)]
        if any(self.store.size(name) is None for name in wanted):
            return None
        try:
            report = ShardReport.model_validate_json(self.store.get(result_report_name(key)))
            return report.model_copy(update={"remembered": True})
        except FileNotFoundError:
            return None

    def _solve_anew(self, work: _Work, key: str, check: Callable[[], None]) -> ShardReport:
        tensor, shard = work.tensor, work.shard
        try:
            scores = Scoring(self.store, tensor, work.options.scores, check).rows(shard.first, shard.last)
        except ms.ScoresError as error:
            return _failure(Code.INVALID_CALIBRATION, tensor, error.reason, _shifted(error.index, 0))
        except FileNotFoundError:
            return _failure(Code.UPLOAD_NOT_FOUND, tensor, "its upload is gone; send it again", None)
        try:
            solution = _solve_rows(scores, work, self.device, check)
        except ms.ScoresError as error:
            return _failure(Code.INVALID_SCORES, tensor, error.reason, _shifted(error.index, shard.first))
        except (ms.PatternError, ms.SolverError, ms.InfeasibleError) as error:
            return _failure(Code.SOLVER_REFUSED, tensor, str(error), None)
        updated = None
        try:
            if work.options.update is not None:
                updated = update_rows(self.store, tensor, shard, work.options, solution, check)
        except ms.UpdateError as error:
            row = "" if error.row is None else f" (row {error.row + shard.first})"
            return _failure(Code.INVALID_CALIBRATION, tensor, f"{error.reason}{row}", None)
        except FileNotFoundError:
            return _failure(Code.UPLOAD_NOT_FOUND, tensor, "its upload is gone; send it again", None)
        solution = solution if updated is None else updated.solution
        if not math.isfinite(solution.total_score):
            return _failure(Code.INVALID_SCORES, tensor, "its scores add up to more than float64 holds", None)
        if solution.status is ms.Status.TIME_LIMIT:
            # What was found in time is nobody else's result.
            key = digest_document({"key": key, "solved": uuid.uuid4().hex})
            self._hold(work.job, key)
        weight = self._weight(work.tensor, updated) if work.options.spectrum else None
        more = measure(work.tensor, work.shard, solution, weight)
        report = self._report(solution, key).model_copy(update=more)
        if updated is not None:
            report = report.model_copy(update={"update": updated.report})
            self.store.put(weights_name(key), updated.data)
        self.store.put(result_name(key), masks.pack(solution.mask).tobytes())
        if solution.status is not ms.Status.TIME_LIMIT:
            self.store.put(result_report_name(key), report.model_dump_json().encode())
        return report

    def _weight(self, tensor: PlannedTensor, updated: Updated | None) -> npt.NDArray[np.generic]:
        if updated is None:
            return read_rows(self.store, tensor, 0, tensor.shape[0])
        return to_numpy(updated.data, tensor.dtype, tuple(tensor.shape))

    def _report(self, solution: ms.Solution, key: str) -> ShardReport:
        return ShardReport(
            result=key,
            status=solution.status.value,
            objective=solution.objective,
            upper_bound=solution.upper_bound,
            total_score=solution.total_score,
            kept_score=solution.unshifted_objective,
            kept=solution.kept,
            entries=int(np.prod(solution.mask.shape)),
            solve_s=solution.stats["solve_s"],
            solver=solution.stats["solver"],
            device=str(solution.stats.get("device", "cpu")),
        )


def _solve_rows(scores: npt.NDArray[np.generic], work: _Work, device: str, check: Callable[[], None]) -> ms.Solution:
    options = work.options
    rule = ms.parse(options.pattern, axis=options.axis, ragged=options.ragged)
    # One thread: shards are the parallelism, and a pool child may have no children of its own.
    return ms.solve(
        scores,
        rule,
        solver_on(options.solver, rule, device),
        time_limit_s=work.left_s,
        threads=1,
        on_progress=lambda done, total: check(),
    )


def _shifted(index: tuple[int, ...] | None, first: int) -> list[int] | None:
    return None if index is None else [index[0] + first, *index[1:]]


def _failure(code: Code, tensor: PlannedTensor, reason: str, index: list[int] | None) -> ShardReport:
    where = "" if index is None else f" at {index}"
    log.info("tensor %r has no mask: %s%s", tensor.name, reason, where)
    return ShardReport(error=TensorError(code=code, message=f"tensor {tensor.name!r}: {reason}{where}", index=index))
