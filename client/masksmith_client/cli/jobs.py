"""`masksmith jobs`: list, show, watch, cancel and delete jobs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from masksmith_client._client import Client
from masksmith_client._errors import ClientError, JobFailedError
from masksmith_client._jobs import Job
from masksmith_wire.documents import Job as JobDocument, JobState

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
from .outputs import check_output
from .report import show_measures
from .service import interactive_client
from .solve import remote_report

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
FAILED = (JobState.FAILED, JobState.CANCELED)


def list_jobs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of jobs.")] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with interactive_client(url) as client:
        summaries = list(client.jobs.list(limit))
    if as_json:
        return print_json([summary.model_dump(mode="json") for summary in summaries])
    rows = [
        (
            summary.id,
            summary.state.value,
            summary.pattern,
            summary.solver,
            f"{summary.progress.done}/{summary.progress.total}",
            summary.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
        for summary in summaries
    ]
    show_table(("job", "state", "pattern", "solver", "shards", "created"), rows, left=4)
    return None


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
        if as_json:
            for event in handle.events():
                print_json_line({"id": event.id, "event": event.kind, **event.data})
            handle.refresh()
        else:
            try:
                handle.wait(progress=None)
            except JobFailedError as error:
                print_note(f"masksmith: {error}")
            _show(handle, as_json=False)
        if handle.state in FAILED:
            raise typer.Exit(1)


def cancel(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job; finished masks can still be downloaded."""
    with interactive_client(url) as client:
        document = client.jobs.cancel(job).document
    print_result(document.model_dump(mode="json"), f"job {document.id} is {document.state.value}", as_json=as_json)


def delete(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Delete a job and its results."""
    with interactive_client(url) as client:
        client.jobs.delete(job)
    print_result({"id": job, "deleted": True}, f"job {job} is deleted", as_json=as_json)


def masks(
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Masks file to write.")],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download the masks of a job that has ended."""
    check_output(output)
    with interactive_client(url) as client:
        downloaded = client.jobs.get(job).masks()
    if not downloaded:
        raise ClientError(f"job {job} has no masks: none of its tensors was solved")
    downloaded.save(output)
    document = {"id": job, "output": str(output), "masks": list(downloaded)}
    print_result(document, f"{len(downloaded)} mask(s) -> {output}", as_json=as_json)


def _show_cases(document: JobDocument) -> None:
    print_line(f"job {document.id}: {document.state.value}, {document.progress.done}/{document.progress.total} cases")
    rows = [
        (case.name, case.state.value, case.kernel or "-", "-" if case.speedup is None else f"{case.speedup:.2f}x")
        for case in document.cases
    ]
    show_table(("case", "state", "fastest", "speed-up"), rows, left=3)
    for case in document.cases:
        if case.error is not None:
            print_note(f"{case.name}: {case.error.message} ({case.error.code})")


def _show(job: Job, *, as_json: bool) -> None:
    document = job.document
    if as_json:
        return print_json(document.model_dump(mode="json"))
    if document.kind == "benchmark":
        return _show_cases(document)
    end = document.finished_at.timestamp() if document.finished_at else time.time()
    began = (document.started_at or document.created_at).timestamp()
    print_line(f"job {document.id}: {document.state.value}, {document.progress.done}/{document.progress.total} shards")
    remote_report(job, None, max(0.0, end - began)).show(as_json=False)
    return None
