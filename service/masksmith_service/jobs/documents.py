"""Builds the documents of jobs, from records and the reports of shards or cases, and the entries of job lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from pydantic import ValidationError

from masksmith.benchmark import CaseResult, winners
from masksmith.layouts import default_axes
from masksmith.patterns import Pattern, parse
from masksmith_service.benchmarks.reports import case_result
from masksmith_state.jobs.certificates import certificate
from masksmith_state.jobs.model import JobRecord, parse_by_index, parse_record
from masksmith_state.jobs.outputs import PlannedOutput
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard, shards_by_tensor
from masksmith_state.jobs.snapshots import Snapshot
from masksmith_state.jobs.unreadable_records import as_unreadable_record_errors
from masksmith_state.queue import role_and_device
from masksmith_wire.benchmarks import CaseReport, PlannedCase
from masksmith_wire.documents import (
    CaseView,
    Job,
    JobState,
    JobSummary,
    LayoutInput,
    OutputFileReport,
    OutputReport,
    Progress,
    TensorReport,
    WaitingFor,
)

from .measures import combined_measures

log = logging.getLogger(__name__)

SHOWN_OPTIONS = {"pattern", "axis", "ragged", "scores", "budget", "floors", "update", "solver"}


def snapshot_view(snapshot: Snapshot) -> Job:
    """Build the document of a job of either kind."""
    with as_unreadable_record_errors(snapshot.job):
        record = parse_record(snapshot.job, snapshot.fields)
        if record.kind == "benchmark":
            document = benchmark_view(
                record,
                parse_by_index(snapshot.parts, PlannedCase),
                parse_by_index(snapshot.reports, CaseReport),
                snapshot.taken_indices,
            )
        else:
            shards, reports = parse_by_index(snapshot.parts, Shard), parse_by_index(snapshot.reports, ShardReport)
            document = job_view(record, shards, reports, snapshot.taken_indices)
        queue = snapshot.unserved_queue
    return document if queue is None else document.model_copy(update={"waiting_for": waiting_for(queue)})


def waiting_for(queue: str) -> WaitingFor:
    """Describe the workers that a queue waits for."""
    role, device = role_and_device(queue)
    return WaitingFor(queue=queue, role=role, device=device)


def job_view(
    record: JobRecord,
    shards: dict[int, Shard],
    reports: dict[int, ShardReport],
    taken_indices: frozenset[int] = frozenset(),
) -> Job:
    """Build the document of a masks job; `taken_indices` are the indices of taken, unfinished shards."""
    options, tensors = record.plan.options, record.plan.tensors
    shown_options = options.model_dump(include=SHOWN_OPTIONS) | {"pattern": record.plan.pattern_text}
    indices = shards_by_tensor(tensors, shards)
    reports_by_tensor = [[reports.get(index) for index in shard_indices] for shard_indices in indices]
    are_taken = [not taken_indices.isdisjoint(shard_indices) for shard_indices in indices]
    # Cached, because most tensors have the same pattern.
    pattern_of = cache(partial(parse, axis=options.axis, ragged=options.ragged))
    budget_gaps = [report.budget_gap for report in reports.values() if report.budget_gap is not None]
    return Job(
        **_common_members(record),
        **shown_options,
        budget_gap=max(budget_gaps, default=None),
        tensors=[
            tensor_view(tensor, tensor_reports, record.state, options.pattern, pattern_of, is_taken=is_taken)
            for tensor, tensor_reports, is_taken in zip(tensors, reports_by_tensor, are_taken, strict=True)
        ],
        skipped=record.plan.skipped,
        output=_output(record.plan.output, shards, reports, taken_indices, record.state),
    )


def benchmark_view(
    record: JobRecord,
    cases: dict[int, PlannedCase],
    reports: dict[int, CaseReport],
    taken_indices: frozenset[int] = frozenset(),
) -> Job:
    """Build the document of a benchmark; `taken_indices` are the indices of taken, unfinished cases."""
    assert record.benchmark is not None
    views = [
        _case_view(planned, reports.get(index), record.state, is_taken=index in taken_indices)
        for index, planned in cases.items()
    ]
    members = _common_members(record) | record.benchmark.summary_fields
    return Job(**members, cases=views)


def _common_members(record: JobRecord) -> dict[str, Any]:
    """Members that jobs of all kinds have."""
    members = record.model_dump(
        include={"id", "labels", "priority", "kind", "state", "created_at", "started_at", "finished_at"}
    )
    return members | {"name": record.name or None, "progress": Progress(done=record.done, total=record.total)}


def _case_view(planned: PlannedCase, report: CaseReport | None, job_state: JobState, *, is_taken: bool) -> CaseView:
    name = str(CaseResult.read_case(planned.case))
    if report is None:
        return CaseView(name=name, state=_state(1, 0, job_state, has_failed=False, is_taken=is_taken))
    best = next(iter(winners([case_result(planned, report)])), None)
    return CaseView(
        name=name,
        state=JobState.SUCCEEDED if report.error is None else JobState.FAILED,
        kernel=None if best is None else best.kernel,
        speedup=None if best is None else best.speedup,
        low=None if best is None else best.low,
        high=None if best is None else best.high,
        error=report.error,
    )


def tensor_view(
    tensor: PlannedTensor,
    reports: Sequence[ShardReport | None],
    job_state: JobState,
    pattern: str,
    pattern_of: Callable[[str], Pattern],
    *,
    is_taken: bool = False,
) -> TensorReport:
    """Sum the reports of a tensor's shards; the numbers are None until all shards have succeeded.

    Args:
        tensor: The tensor.
        reports: Report of each of its shards, None for a shard that is not finished.
        job_state: State of the job.
        pattern: The job's pattern, which is used if the reports have no pattern of the tensor.
        pattern_of: Parses a pattern of this job.
        is_taken: Whether a worker has taken one of the shards and not finished it.
    """
    finished_reports = [report for report in reports if report is not None]
    errors = [report.error for report in finished_reports if report.error is not None]
    state = _state(len(reports), len(finished_reports), job_state, has_failed=bool(errors), is_taken=is_taken)
    view = TensorReport(
        name=tensor.name, shape=tensor.shape, layout=_layout(tensor), pattern=tensor.pattern, state=state
    )
    if errors:
        return view.model_copy(update={"error": errors[0]})
    if len(finished_reports) < len(reports):
        return view
    return view.model_copy(
        update=certificate(finished_reports)
        | {
            "pattern": finished_reports[0].pattern,
            **combined_measures(tensor, finished_reports, pattern_of(finished_reports[0].pattern or pattern)),
            "device": ", ".join(sorted({report.device for report in finished_reports})),
        }
    )


def _layout(tensor: PlannedTensor) -> LayoutInput:
    axes = tensor.axes or " ".join(default_axes(tensor.shape))
    return LayoutInput(axes=axes, out_parts=tensor.out_parts, rule=tensor.rule)


def _output(
    output: PlannedOutput | None,
    shards: dict[int, Shard],
    reports: dict[int, ShardReport],
    taken_indices: frozenset[int],
    job_state: JobState,
) -> OutputReport | None:
    if output is None:
        return None
    files = []
    for index, shard in shards.items():
        if shard.file is not None:
            report = reports.get(index)
            done_count, error = (0, None) if report is None else (1, report.error)
            is_taken = index in taken_indices
            state = _state(1, done_count, job_state, has_failed=error is not None, is_taken=is_taken)
            files.append(OutputFileReport(name=output.files[shard.file].name, state=state, error=error))
    return OutputReport(location=output.location, files=files)


def summary_view(row: dict[str, object]) -> JobSummary | None:
    """Build the entry of a job list from `row`, and remove members from `row`; None if the record cannot be read."""
    try:
        progress = Progress.model_validate({"done": row.pop("done"), "total": row.pop("total")})
        members = {"key": row.pop("owner") or None, "name": row["name"] or None, "progress": progress}
        return JobSummary.model_validate(row | members)
    except ValidationError as error:
        log.error("job %s is not listed: its record has %d invalid field(s)", row["id"], error.error_count())
        return None


def _state(shard_count: int, done_count: int, job_state: JobState, *, has_failed: bool, is_taken: bool) -> JobState:
    """Return the state of a tensor, output file or case.

    Args:
        shard_count: Number of its shards; 1 for an output file or a case.
        done_count: Number of the finished shards.
        job_state: State of the job.
        has_failed: Whether a finished shard has failed.
        is_taken: Whether a worker has taken one of the shards, or the case, and not finished it.
    """
    if has_failed:
        return JobState.FAILED
    if done_count == shard_count:
        return JobState.SUCCEEDED
    if job_state is JobState.CANCELED:
        return JobState.CANCELED
    return JobState.RUNNING if done_count > 0 or is_taken else JobState.QUEUED
