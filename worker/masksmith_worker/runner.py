"""Solves one shard of a masks job, stage by stage, or writes one file of the job's output."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import masksmith as ms
from masksmith.solvers import by_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.jobs.model import Lease
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard, result_key
from masksmith_wire.digests import digest_document
from masksmith_wire.errors import TensorError
from masksmith_wire.specification import JobSpecification

from .failures import FAILURES, OUTPUT_FAILURES, failure_report, output_failure_report
from .lease import StoppedError
from .output.files import write_output_file
from .output.results import ShardResults
from .output.work import OutputWork, ShardFailedError
from .part_runner import PartRunner
from .stages.allocate import BudgetAllocator
from .stages.load import DamagedUploadError, InputReader
from .stages.measure import compare_shard, measure_shard
from .stages.score import score_shard
from .stages.solve import solve_shard
from .stages.store import load_result, store_result
from .stages.update import check_installed, update_shard
from .stages.work import ShardWork

RESULT_POLL_S = 0.05
"""Seconds between two reads of the report of a shard that another worker has taken."""
MAX_CACHED_PLANS = 4
"""Maximum number of jobs whose plans are cached; the plan of a large model takes about ten megabytes."""


class ShardRunner(PartRunner):
    """Processes shards of masks jobs: solves rows of tensors, and writes files of outputs."""

    @cached_property
    def _plans(self) -> dict[str, MasksPlan]:
        """Cache of plans by job, in the order of their last use."""
        return {}

    @cached_property
    def references(self) -> BlobReferences:
        """References of jobs to blobs of the store."""
        return BlobReferences(self.records.redis, self.store)

    def error_report(self, error: TensorError) -> ShardReport:
        """Report of a failed shard."""
        return ShardReport(error=error, device=self.device)

    def work(self, lease: Lease, taken_at: float, check: Callable[[], None]) -> ShardReport:
        """Solve a shard of a tensor, or write a file of the job's output."""
        plan, shard = self._plan_of(lease.job), self.records.shard(lease.job, lease.shard)
        if plan is None or shard is None:
            raise StoppedError
        if shard.file is not None:
            return self._write_file(plan, lease.job, shard.file, check)
        limit_s = plan.options.time_limit_s
        deadline = None if limit_s is None else taken_at - lease.elapsed_s + limit_s
        try:
            return self._process_shard(plan, lease.job, lease.shard, shard, check, deadline)
        except FAILURES as error:
            tensor = plan.tensors[shard.tensor]
            # With a budget, the tensor may have no pattern yet.
            pattern_members = {} if plan.options.budget is not None else {"pattern": tensor.pattern}
            return self._failure_report(error, tensor).model_copy(update={"device": self.device} | pattern_members)

    def _failure_report(self, error: Exception, tensor: PlannedTensor) -> ShardReport:
        """Make the report of a shard from one of `FAILURES`; forget a damaged upload, so that it is sent again."""
        if isinstance(error, DamagedUploadError):
            self.references.forget_missing_upload(error.digest)
        return failure_report(error, tensor)

    def _process_shard(
        self,
        plan: MasksPlan,
        job: str,
        index: int,
        shard: Shard,
        check: Callable[[], None],
        deadline: float | None = None,
    ) -> ShardReport:
        """Divide the job's budget, if it has one; then load the shard's result from the store, or solve the shard.

        Raises:
            FAILURES: If the shard cannot be solved.
        """
        tensor = plan.tensors[shard.tensor]
        pattern_members: dict[str, Any] = {"pattern": tensor.pattern}
        specification = JobSpecification.parse(plan.options).with_own_pattern(tensor.pattern)
        work = ShardWork(job, tensor, shard, specification, self.store, check, deadline, self.roots)
        if specification.budget is not None:
            pattern_members = self._allocate(work, plan, index)
            work = replace(work, specification=specification.with_pattern(pattern_members["pattern"]))
        return compare_shard(work, self._load_or_solve(work)).model_copy(update=pattern_members)

    def _write_file(self, plan: MasksPlan, job: str, number: int, check: Callable[[], None]) -> ShardReport:
        """Write a file of the job's output; the report has the error if that fails."""
        assert plan.output is not None
        shards = self.records.shards(job)

        def report_of(index: int) -> ShardReport:
            return self._wait_or_solve(plan, job, index, shards[index], check)

        results = ShardResults(self.store, lambda: self.records.reports(job), report_of)
        work = OutputWork(job, plan, plan.output, InputReader(self.store, self.roots), shards, results, check)
        try:
            write_output_file(work, number)
        except (*FAILURES, *OUTPUT_FAILURES) as error:
            return output_failure_report(error, plan.output.files[number].name)
        return ShardReport()

    def _wait_or_solve(
        self, plan: MasksPlan, job: str, index: int, shard: Shard, check: Callable[[], None]
    ) -> ShardReport:
        """Wait while another worker solves a shard; then load the result from the store, or solve the shard here.

        There is no deadline, since a job that writes an output has no time limit.

        Raises:
            ShardFailedError: If the other worker has reported an error, or the shard cannot be solved.
        """
        while (report := self.records.report(job, index)) is None and self.records.is_leased(job, index):
            time.sleep(RESULT_POLL_S)
            check()
        if report is not None and report.error is not None:
            raise ShardFailedError(report.error)
        try:
            return self._process_shard(plan, job, index, shard, check)
        except FAILURES as failure:
            report = self._failure_report(failure, plan.tensors[shard.tensor])
            assert report.error is not None
            raise ShardFailedError(report.error) from None

    def _plan_of(self, job: str) -> MasksPlan | None:
        """Return the plan of a job; None if it is not cached and the job no longer exists.

        Plans are cached, because the plan of a large model takes long to parse; several of them, because a worker takes
        shards of several jobs in turn.
        """
        plan = self._plans.pop(job, None)
        if plan is None:
            record = self.records.read(job)
            if record is None:
                return None
            plan = record.plan
        self._plans[job] = plan
        if len(self._plans) > MAX_CACHED_PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    def _allocate(self, work: ShardWork, plan: MasksPlan, index: int) -> dict[str, Any]:
        """The tensor's pattern under the job's budget, and the gap of the allocation, as members of the report."""
        allocation = BudgetAllocator(work, plan, lambda: self._shards_of_tensors(work.job)).allocate(index)
        return {"pattern": allocation.patterns[work.tensor.name], "budget_gap": allocation.gap}

    def _shards_of_tensors(self, job: str) -> dict[int, Shard]:
        """All shards of a job except those that write files."""
        return {index: shard for index, shard in self.records.shards(job).items() if shard.file is None}

    def _load_or_solve(self, work: ShardWork) -> ShardReport:
        solver = by_name(work.specification.options.solver)
        key = result_key(work.tensor, work.shard, work.specification, solver.name, solver.version)
        self._add_reference(work.job, key)
        return load_result(work, key) or self._solve_and_store(work, key)

    def _solve_and_store(self, work: ShardWork, key: str) -> ShardReport:
        method = work.specification.update
        if method is not None:
            check_installed(method)
        solution = solve_shard(work, score_shard(work), self.device)
        # The status is read before the update: ADMM replaces the solution by another one, whose status does not show
        # the time limit.
        is_cut_short = solution.status is ms.Status.TIME_LIMIT
        updated = None if method is None else update_shard(work, method, solution)
        solution = solution if updated is None else updated.solution
        if is_cut_short:
            # Other jobs must not reuse a result that depends on the time limit, so its key is made unique.
            key = digest_document({"key": key, "solved": uuid.uuid4().hex})
            self._add_reference(work.job, key)
        report = measure_shard(work, solution, updated, key)
        return store_result(self.store, key, solution.mask, updated, report)

    def _add_reference(self, job: str, key: str) -> None:
        # The reference is added before the result is loaded or stored, so that the result cannot be deleted meanwhile.
        if not self.references.add_result_reference(job, key):
            raise StoppedError
