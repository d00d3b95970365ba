"""Submission: what callers ask for becomes recorded jobs, whose parts are enqueued."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from masksmith_service.auth.principal import Caller
from masksmith_service.benchmarks.planning import plan_benchmark
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_service.uploads.receive import too_many_bytes
from masksmith_state.errors import FullError, MissingUploadError
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.placement import search_queue
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Shard, cut
from masksmith_state.queue import bench_queue
from masksmith_state.telemetry import logs
from masksmith_wire.benchmarks import BenchmarkPlan, BenchmarkRequest, PlannedCase
from masksmith_wire.digests import digest_document
from masksmith_wire.documents import MasksRequest, Skipped
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.specification import JobSpecification

from . import planning
from .access import read_job, visible_job
from .previous_masks import add_previous
from .results import Finished, finished
from .statistics import add_statistics, check_calibrated_names
from .upload_headers import read_headers, upload_missing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """Makes a job for a caller, on a thread; its methods give the job's id.

    Attributes:
        key: The `Idempotency-Key` that came with the request.
    """

    state: State
    caller: Caller
    key: str | None

    def of_document(self, document: MasksRequest | BenchmarkRequest) -> str:
        """Start what a document asks for.

        Raises:
            RequestError: If it cannot be done, or there are too many jobs.
        """
        if isinstance(document, BenchmarkRequest):
            return self._measure(document)
        specification = planning.parse_document(document, self.state.settings.max_tensors)
        headers = read_headers(self.state, self.caller, document)
        located = planning.locate_named(document.tensors, specification, headers)
        named = {tensor.name: tensor for tensor in document.tensors}
        tensors, _ = add_statistics(located, specification, headers, named=named, required=named)
        return self._solve(specification, tensors, [], headers)

    def of_file(
        self, options: planning.FileOptions, specification: JobSpecification, digest: str, header: Header
    ) -> str:
        """Start a masks job on an upload.

        Raises:
            RequestError: If it cannot be done, or there are too many jobs.
        """
        headers = read_headers(self.state, self.caller, options)
        if options.calibration is not None:
            check_calibrated_names(headers[options.calibration], header.tensors)
        located, selection = planning.choose(options, specification, digest, header)
        tensors, bare = add_statistics(located, specification, headers, named={}, required=selection.named)
        reasons = selection.skipped | {skip.name: skip.reason for skip in bare}
        skipped = [Skipped(name=name, reason=reasons[name]) for name in header.tensors if name in reasons]
        return self._solve(specification, tensors, skipped, headers)

    def _solve(
        self,
        specification: JobSpecification,
        tensors: list[PlannedTensor],
        skipped: list[Skipped],
        headers: Mapping[str, Header],
    ) -> str:
        """Plan a masks job on located tensors, cut it into shards, and start it."""
        limits = self.state.settings
        tensors = add_previous(tensors, specification.options.previous, headers, self._finished_of)
        plan = planning.make_plan(specification, tensors, skipped)
        shards = cut(plan.tensors, specification, limits.shard_bytes, limits.max_shards)
        return self._start(plan, shards, search_queue(specification, self.state.records.workers.live()))

    def _measure(self, document: BenchmarkRequest) -> str:
        """Make the cases of a benchmark, and start it; masks must be visible to whoever asks."""
        if document.masks_of is not None:
            visible_job(document.masks_of, self.state, self.caller)
        planned = plan_benchmark(document, self.state.records)
        return self._start(planned.plan, planned.cases, bench_queue(document.device))

    def _start(
        self, plan: MasksPlan | BenchmarkPlan, parts: Sequence[Shard] | Sequence[PlannedCase], queue: str
    ) -> str:
        """Write the record, then enqueue its parts; the sweeper enqueues what a crash in between leaves out."""
        job, is_new = self._record(plan, parts, queue)
        logs.add_fields(job=job)
        if is_new:
            try:
                self.state.queue.enqueue_all(job, len(parts), queue)
            except redis.RedisError as error:
                log.warning("job %s is recorded but not enqueued; the sweeper will do it: %s", job, error)
        return job

    def _record(
        self, plan: MasksPlan | BenchmarkPlan, parts: Sequence[Shard] | Sequence[PlannedCase], queue: str
    ) -> tuple[str, bool]:
        fingerprint = digest_document(_what(plan, parts)) if self.key else ""
        try:
            made = self.state.records.create(plan, parts, self.key or "", fingerprint, self._admission(), queue)
        except FullError as error:
            raise _full(error, self.caller) from None
        except MissingUploadError as error:
            raise upload_missing(error.digest) from None
        if made is None:
            detail = f"Idempotency-Key {self.key!r} came with another request before; use a new one"
            raise RequestError(Code.IDEMPOTENCY_CONFLICT, detail)
        return made

    def _admission(self) -> Admission:
        quotas = self.caller.quotas
        return Admission(
            owner=self.caller.key,
            uploaders="anybody" if self.caller.is_admin else "owner",
            max_live_jobs=self.state.settings.max_live_jobs,
            max_live_jobs_of_owner=quotas.live_jobs,
            max_bytes_of_owner=quotas.stored_bytes,
        )

    def _finished_of(self, job: str) -> Finished:
        return finished(read_job(self.state, visible_job(job, self.state, self.caller)), self.state.records)


def _what(plan: MasksPlan | BenchmarkPlan, parts: Sequence[Shard] | Sequence[PlannedCase]) -> dict[str, Any]:
    """Give what makes two requests the same: masks do not depend on how they are cut, benchmarks are their cases."""
    content = plan.model_dump(mode="json")
    return content if isinstance(plan, MasksPlan) else {"plan": content, "cases": [part.model_dump() for part in parts]}


def _full(error: FullError, caller: Caller) -> RequestError:
    if error.what == "bytes":
        return too_many_bytes(caller)
    if error.what == "quota":
        detail = f"key {caller.name!r} has {error.limit} jobs queued or running (live_jobs); wait until some have ended"
        return RequestError(Code.TOO_MANY_JOBS, detail, status=429, retry_after_s=10, limit=error.limit)
    detail = f"{error.limit} jobs are queued or running (max_live_jobs); try again when some have ended"
    return RequestError(Code.TOO_MANY_JOBS, detail, retry_after_s=10, limit=error.limit)
