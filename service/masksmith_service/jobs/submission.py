"""Submits jobs: plans the job of a request, creates its record, and notifies the workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio.from_thread
import redis

from masksmith_service.auth.principal import Principal
from masksmith_service.benchmarks.planning import benchmark_subject, plan_benchmark
from masksmith_service.bounds.middleware import Reservation
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.references.access import find_readable
from masksmith_service.references.models import Model, ModelReader
from masksmith_service.references.outputs import OutputPlanner, claim_output
from masksmith_service.references.sources import model_files, read_references
from masksmith_service.resources import State
from masksmith_service.uploads.header_checks import check_tensor_count
from masksmith_service.uploads.quota import too_many_bytes_error, too_many_record_bytes_error
from masksmith_state.errors import FullError, MissingResultError, MissingUploadError
from masksmith_state.jobs.file_shards import with_file_shards
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.outputs import PlannedOutput
from masksmith_state.jobs.placement import queue_for_masks_job
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Shard, Source, cut
from masksmith_state.queue import bench_queue
from masksmith_state.telemetry import logs
from masksmith_wire.benchmarks import BenchmarkPlan, BenchmarkRequest, PlannedCase
from masksmith_wire.documents import MasksOptions, MasksRequest, OutputInput, Skipped
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.names import JobDescription, default_name, subject_of
from masksmith_wire.priorities import Priority
from masksmith_wire.specification import JobSpecification

from .access import read_job, visible_job_id
from .documents import waiting_for
from .file_tensors import select_file_tensors
from .named_tensors import locate_named
from .options import FileOptions, ModelOptions, parse_document_options
from .planning import make_plan
from .previous_masks import add_previous
from .repeated_requests import RepeatableRequest
from .results import FinishedTensors, finished_tensors
from .statistics import add_statistics
from .upload_headers import read_headers, upload_missing_error

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSubmitter:
    """Submits the job of a request; its public methods return the job's id, and must be called on a thread of anyio.

    Attributes:
        state: Resources of the application.
        principal: The owner of the job.
        repeatable: The request, if it has an `Idempotency-Key`; else None.
        reservation: Capacities that the request holds.
        require_worker: Whether a job is refused if no living worker consumes its queue.
    """

    state: State
    principal: Principal
    repeatable: RepeatableRequest | None
    reservation: Reservation
    require_worker: bool = False

    def submit_once(self, submit: Callable[[], str]) -> str:
        """Return the job of an earlier request with the same `Idempotency-Key`, or submit the job by `submit`.

        The earlier job is found before anything is read that may have changed or been deleted since, such as the
        results of the job that `previous` names.

        Raises:
            RequestError: If the key was used with another request, or as `submit` raises it.
        """
        job = None if self.repeatable is None else self.repeatable.find_job(self.state.records, self.principal.key)
        if job is None:
            return submit()
        logs.add_fields(job=job)
        return job

    def submit_document(self, document: MasksRequest | BenchmarkRequest) -> str:
        """Submit the job of a document.

        Raises:
            RequestError: If the request is invalid, or the job is refused, for example because a limit is reached.
        """
        if isinstance(document, BenchmarkRequest):
            return self._submit_benchmark(document)
        specification = parse_document_options(document, self.state.settings.max_tensors)
        reader = self._make_reader()
        sources, headers = self._read_headers(document, reader)
        planned_tensors = locate_named(document.tensors, specification, headers, sources)
        input_by_name = {tensor.name: tensor for tensor in document.tensors}
        # No tensor is skipped, because the statistics of all of them are required.
        tensors, _ = add_statistics(
            planned_tensors,
            specification,
            headers,
            sources,
            document_tensors=input_by_name,
            required_names=input_by_name,
        )
        tensors = add_previous(tensors, document.previous, headers, sources, self._read_finished)
        if document.output is None:
            return self._submit_masks(specification, tensors, [], document)
        model = self._read_model(document.output.model, reader)
        output = OutputPlanner(self.state, self.principal).plan(document.output, model, specification, tensors)
        return self._submit_masks(specification, tensors, [], document, output)

    def submit_file(
        self,
        options: FileOptions,
        specification: JobSpecification,
        description: JobDescription,
        digest: str,
        header: Header,
    ) -> str:
        """Submit a masks job on an uploaded file, and on the uploaded files that the option `also` names.

        Raises:
            RequestError: If the request is invalid, or the job is refused, for example because a limit is reached.
        """
        sources, headers = self._read_headers(options, self._make_reader())
        files = {digest: header} | {also: headers[also] for also in options.also}
        check_tensor_count(sum(len(each.tensors) for each in files.values()), self.state.settings.max_tensors)
        tensors, skipped = select_file_tensors(options, specification, files, headers, sources)
        tensors = add_previous(tensors, options.previous, headers, sources, self._read_finished)
        return self._submit_masks(specification, tensors, skipped, description)

    def submit_model(self, options: ModelOptions, specification: JobSpecification, description: JobDescription) -> str:
        """Submit a job that writes a pruned copy of a model; the options name model and output, and select tensors.

        Raises:
            RequestError: If the request is invalid, or the job is refused, for example because a limit is reached.
        """
        if options.also:
            detail = "the option 'also' is for an uploaded file; the reference of a model names all of its files"
            raise RequestError(Code.INVALID_DOCUMENT, detail)
        reader = self._make_reader()
        model = self._read_model(options.model, reader)
        check_tensor_count(len(model.weight_map), self.state.settings.max_tensors)
        files, located_files = model_files(model)
        sources, headers = self._read_headers(options, reader)
        tensors, skipped = select_file_tensors(options, specification, files, headers, sources, located_files)
        tensors = add_previous(tensors, options.previous, headers, sources, self._read_finished)
        output_input = OutputInput(location=options.output, model=options.model)
        output = OutputPlanner(self.state, self.principal).plan(output_input, model, specification, tensors)
        return self._submit_masks(specification, tensors, skipped, description, output)

    def _make_reader(self) -> ModelReader:
        return ModelReader(self.state, self._reserve_memory)

    def _read_model(self, reference: str, reader: ModelReader) -> Model:
        return reader.read(find_readable(self.state.roots, self.principal, reference))

    def _read_headers(self, options: MasksOptions, reader: ModelReader) -> tuple[dict[str, Source], dict[str, Header]]:
        """Return the sources of the request's files in roots, and the headers of these files and of uploads.

        The files of a model are not among them.
        """
        sources, headers_in_roots = read_references(self.state, self.principal, options, reader)
        return sources, read_headers(self.state, self.principal, options, self._reserve_memory) | headers_in_roots

    def _submit_masks(
        self,
        specification: JobSpecification,
        tensors: list[PlannedTensor],
        skipped: list[Skipped],
        description: JobDescription,
        output: PlannedOutput | None = None,
    ) -> str:
        """Plan a masks job on located tensors, split it into shards, and start it."""
        settings = self.state.settings
        plan = make_plan(specification, tensors, skipped).model_copy(update={"output": output})
        shards = cut(plan.tensors, specification, settings.shard_bytes, settings.max_shards)
        shards = with_file_shards(shards, plan.tensors, output)
        self._reserve_memory(cost("part") * len(shards))
        pattern_texts = {tensor.pattern for tensor in plan.tensors}
        patterns = [specification.with_own_pattern(text).pattern for text in pattern_texts]
        queue = queue_for_masks_job(specification, self.state.records.workers.live(), patterns)
        subject = subject_of(tensor.name for tensor in plan.tensors)
        with claim_output(self.state, self.principal, output, self._reserve_memory):
            return self._start(plan, shards, queue, description, default_name(subject, plan.pattern_text))

    def _submit_benchmark(self, document: BenchmarkRequest) -> str:
        """Plan the cases of a benchmark, and start it.

        If the benchmark uses the masks of a job, the principal must be authorized to see that job.
        """
        if document.masks_of is not None:
            masks_of = visible_job_id(document.masks_of, self.state, self.principal)
            document = document.model_copy(update={"masks_of": masks_of})
        benchmark = plan_benchmark(document, self.state.records)
        name = default_name(benchmark_subject(document), ", ".join(benchmark.plan.options.patterns))
        return self._start(benchmark.plan, benchmark.cases, bench_queue(document.device), document, name)

    def _start(
        self,
        plan: MasksPlan | BenchmarkPlan,
        parts: Sequence[Shard] | Sequence[PlannedCase],
        queue: str,
        description: JobDescription,
        fallback_name: str,
    ) -> str:
        """Create the record; if the job is new, notify the workers.

        After a crash in between, the sweeper notifies them.

        `fallback_name` is the job's name if the request has none.
        """
        if self.require_worker and not self.state.records.is_served(queue):
            raise no_worker_error(queue)
        job, is_new = self._create_record(plan, parts, queue, description, fallback_name)
        logs.add_fields(job=job)
        if is_new:
            try:
                self.state.producer.send_messages(queue, self.state.records.schedule.messages_wanted(queue))
            except redis.RedisError as error:
                log.warning("job %s is recorded but no worker was notified; the sweeper will do it: %s", job, error)
        return job

    def _create_record(
        self,
        plan: MasksPlan | BenchmarkPlan,
        parts: Sequence[Shard] | Sequence[PlannedCase],
        queue: str,
        description: JobDescription,
        fallback_name: str,
    ) -> tuple[str, bool]:
        """Create the record, unless the job of this `Idempotency-Key` exists.

        Returns:
            The job's id, and whether the job is new.
        """
        request = self.repeatable
        key, fingerprint = ("", "") if request is None else (request.idempotency_key, request.fingerprint)
        admission = self._admission(description.priority)
        # The record has the priority from the admission.
        description = JobDescription(name=description.name or fallback_name, labels=description.labels)
        require_room = self.state.housekeeping.broker.require_room
        try:
            job_and_is_new = self.state.records.create(
                plan, parts, key, fingerprint, admission, queue, description, require_room
            )
        except FullError as error:
            raise _limit_error(error, self.principal) from None
        except MissingUploadError as error:
            raise upload_missing_error(error.digest) from None
        except MissingResultError:
            detail = "the masks of the job in previous or masks_of were deleted meanwhile; name another job"
            raise RequestError(Code.RESULT_NOT_FOUND, detail) from None
        if job_and_is_new is None:
            assert request is not None
            raise request.conflict_error()
        return job_and_is_new

    def _reserve_memory(self, size: int) -> None:
        """Reserve `size` bytes of memory until the response has been sent."""
        anyio.from_thread.run(self.reservation.add, self.state.capacities.memory, size)

    def _admission(self, priority: Priority) -> Admission:
        quotas = self.principal.quotas
        return Admission(
            owner=self.principal.key,
            priority=priority.at_most(self.principal.max_priority),
            uploaders="anybody" if self.principal.is_admin else "owner",
            max_live_jobs=self.state.settings.max_live_jobs,
            max_live_jobs_of_owner=quotas.live_jobs,
            max_bytes_of_owner=quotas.stored_bytes,
            max_record_bytes_of_owner=self.state.settings.key_broker_bytes if self.principal.key else None,
        )

    def _read_finished(self, job: str) -> FinishedTensors:
        """Read the finished tensors of a job that the principal may see."""
        return finished_tensors(
            read_job(self.state, visible_job_id(job, self.state, self.principal)), self.state.records
        )


def no_worker_error(queue: str) -> RequestError:
    """Return the error for a job whose queue no living worker consumes."""
    workers = waiting_for(queue)
    return RequestError(Code.NO_WORKER, str(workers), retry_after_s=10, waiting_for=workers.model_dump())


def _limit_error(error: FullError, principal: Principal) -> RequestError:
    if error.exceeded_limit == "bytes":
        return too_many_bytes_error(principal)
    if error.exceeded_limit == "records":
        return too_many_record_bytes_error(principal, error.limit)
    if error.exceeded_limit == "quota":
        detail = (
            f"key {principal.name!r} has {error.limit} jobs queued or running (live_jobs); wait until some have ended"
        )
        return RequestError(Code.TOO_MANY_JOBS, detail, status=429, retry_after_s=10, limit=error.limit)
    detail = f"{error.limit} jobs are queued or running (max_live_jobs); try again when some have ended"
    return RequestError(Code.TOO_MANY_JOBS, detail, retry_after_s=10, limit=error.limit)
