"""`masksmith jobs`: list, show, watch, cancel and delete jobs; module `job_results` downloads results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from masksmith_client._client import Client
from masksmith_client._errors import JobFailedError
from masksmith_client._jobs import Job
from masksmith_client.operations.following import queue_note
from masksmith_client.submission.job_filters import JobFilters
from masksmith_wire.documents import Job as JobDocument, JobState, JobSummary
from masksmith_wire.quantities import count_text

from .console import (
    JsonOption,
    UrlOption,
    print_json,
    print_json_line,
    print_line,
    print_note,
    print_result,
    show_table,
)
from .naming import read_label_filters, read_time
from .report import show_measures
from .service import interactive_client, note_waiting
from .solve_run import remote_report

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or a unique prefix of it.")]
UNSUCCESSFUL = (JobState.FAILED, JobState.CANCELED)


def list_jobs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of jobs.")] = 20,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Only jobs with this in the name.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only jobs of this key, by id or name; for administrators.")
    ] = None,
    kind: Annotated[
        Literal["masks", "benchmark"] | None,
        typer.Option(metavar="KIND", help="Only jobs of this kind: masks, benchmark."),
    ] = None,
    state: Annotated[
        list[JobState] | None,
        typer.Option(metavar="STATE", help="Only queued, running, succeeded, failed or canceled jobs; repeatable."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="Only jobs with this label; repeatable."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE|TIME", help="Created then or later: 2h, 7d, '2026-01-31 12:00'.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="AGE|TIME", help="Created then or earlier.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    filters: JobFilters = {
        "name": name,
        "key": key,
        "kind": kind,
        "state": [selected.value for selected in state or ()],
        "labels": read_label_filters(label),
        "since": read_time(since, "--since"),
        "until": read_time(until, "--until"),
    }
    with interactive_client(url) as client:
        summaries = list(client.jobs.list(limit, **filters))
    if as_json:
        return print_json([summary.model_dump(mode="json") for summary in summaries])
    return _show_list(summaries)


def _show_list(summaries: Sequence[JobSummary]) -> None:
    """Print a table of jobs; it has a column of keys if the jobs belong to several."""
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
    head = ("job", "name", *(["key"] if shows_keys else []), "kind", "state", "pattern", "shards", "created")
    show_table(head, rows, left_aligned=len(head) - 2)


def show(
    job: JobId,
    measures: Annotated[bool, typer.Option(help="Show fill, storage, diversity, changes.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job with one line per tensor."""
    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        _show(handle, as_json=as_json)
        if measures and not as_json:
            show_measures(handle.document.tensors)


def watch(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Follow a job until it ends; --json prints one line per event. Exit code 1 if it fails or is canceled."""
    with Client(url) as client:
        handle = client.jobs.get(job)
        note_waiting(handle)
        if as_json:
            for event in handle.events():
                print_json_line({"id": event.id, "event": event.kind, **event.data})
            handle.refresh()
        else:
            try:
                handle.wait(progress="lines")
            except JobFailedError as error:
                print_note(f"masksmith: {error}")
            _show(handle, as_json=False)
        if handle.state in UNSUCCESSFUL:
            raise typer.Exit(1)


def cancel(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job; finished masks can still be downloaded."""
    with interactive_client(url) as client:
        document = client.jobs.cancel(job).document
    print_result(document.model_dump(mode="json"), f"job {document.id} is {document.state.value}", as_json=as_json)


def delete(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Delete a job and its results."""
    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        handle.delete()
    print_result({"id": handle.id, "deleted": True}, f"job {handle.id} is deleted", as_json=as_json)


def job_seconds(document: JobDocument) -> float:
    """Return how long a job has run, in seconds.

    The time begins at the job's start, or at its creation if it has not started, and ends at the job's end, or now.
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


def _show(job: Job, *, as_json: bool) -> None:
    document = job.document
    if as_json:
        return print_json(document.model_dump(mode="json"))
    if document.kind == "benchmark":
        return _show_cases(document)
    _show_head(document, "shards")
    remote_report(job, None, job_seconds(document)).show(as_json=False)
    return None


def _show_head(document: JobDocument, units: str) -> None:
    done, total = count_text(document.progress.done), count_text(document.progress.total)
    print_line(f"job {document.id}: {document.state.value}, {done}/{total} {units}")
    if document.state is JobState.QUEUED:
        print_line(queue_note(document))
    if document.name is not None:
        labels = " ".join(f"{key}={value}" if value else key for key, value in document.labels.items())
        print_line(f"name: {document.name} ({labels})" if labels else f"name: {document.name}")
