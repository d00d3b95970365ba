"""Print jobs: a list, or one job with its tensors or cases."""

from __future__ import annotations

import time
from collections.abc import Sequence

from masksmith_client._jobs import Job
from masksmith_client.operations.following import queue_note
from masksmith_wire.documents import Job as JobDocument, JobState, JobSummary
from masksmith_wire.quantities import count_text

from .console import print_json, print_line, print_note, show_table
from .solve_run import remote_report


def show_list(summaries: Sequence[JobSummary]) -> None:
    """Print a table of jobs, with a column of keys if the jobs belong to more than one key."""
    shows_keys = len({summary.key for summary in summaries}) > 1
    rows = [
        (
            summary.id,
            summary.name or "-",
            *([summary.key or "-"] if shows_keys else []),
            summary.kind,
            summary.state.value,
            summary.pattern,
            f"{count_text(summary.progress.done)}/{count_text(summary.progress.total)}",
            summary.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
        for summary in summaries
    ]
    head = ("job", "name", *(["key"] if shows_keys else []), "kind", "state", "pattern", "progress", "created")
    show_table(head, rows, left_aligned=len(head) - 2)


def show_job(job: Job, *, as_json: bool) -> None:
    """Print a job: its state, and one line per tensor or case; or its document as JSON."""
    document = job.document
    if as_json:
        return print_json(document.model_dump(mode="json"))
    if document.kind == "benchmark":
        return _show_cases(document)
    _show_head(document, "shards")
    remote_report(job, None, job_seconds(document)).show(as_json=False)
    return None


def job_seconds(document: JobDocument) -> float:
    """Return how long a job has run, in seconds.

    The time begins at the job's start, or at its creation if it has not started; it ends at the job's end, or now
    if the job has not ended.
    """
    end = document.finished_at.timestamp() if document.finished_at else time.time()
    return max(0.0, end - (document.started_at or document.created_at).timestamp())


def _show_cases(document: JobDocument) -> None:
    _show_head(document, "cases")
    rows = [(case.name, case.state.value, case.kernel or "-", case.gain or "-") for case in document.cases]
    show_table(("case", "state", "fastest", "speed-up"), rows, left_aligned=3)
    for case in document.cases:
        if case.error is not None:
            print_note(f"{case.name}: {case.error.message} ({case.error.code})")


def _show_head(document: JobDocument, units: str) -> None:
    done, total = count_text(document.progress.done), count_text(document.progress.total)
    print_line(f"job {document.id}: {document.state.value}, {done}/{total} {units}")
    if document.state is JobState.QUEUED:
        print_line(queue_note(document))
    if document.name is not None:
        labels = " ".join(f"{key}={value}" if value else key for key, value in document.labels.items())
        print_line(f"name: {document.name} ({labels})" if labels else f"name: {document.name}")
