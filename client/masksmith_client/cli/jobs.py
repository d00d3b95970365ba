"""`masksmith jobs`: list, show, watch, cancel and delete jobs; module `job_results` downloads results.

The functions that use the client import it, so that the help of a command does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from masksmith_wire.job_states import JobState

from .console import JsonOption, UrlOption, print_json, print_json_line, print_note, print_result
from .naming import read_label_filters, read_time

if TYPE_CHECKING:
    from masksmith_client.submission.job_filters import JobFilters

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
        str | None,
        typer.Option(metavar="AGE|TIME", help="Only jobs created since 2h (ago), 7d, or '2026-01-31 12:00'."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="AGE|TIME", help="Only jobs created until then; as for --since.")
    ] = None,
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
    from .job_views import show_list
    from .service import interactive_client

    with interactive_client(url) as client:
        summaries = list(client.jobs.list(limit, **filters))
    if as_json:
        return print_json([summary.model_dump(mode="json") for summary in summaries])
    return show_list(summaries)


def show(
    job: JobId,
    measures: Annotated[bool, typer.Option(help="Show fill, storage, diversity, changes.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job with one line per tensor."""
    from .job_views import show_job
    from .report import show_measures
    from .service import interactive_client

    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        show_job(handle, as_json=as_json)
        if measures and not as_json:
            show_measures(handle.document.tensors)


def watch(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Follow a job until it ends; --json prints one line per event. Exit code 1 if it fails or is canceled."""
    from masksmith_client._errors import JobFailedError

    from .job_views import show_job
    from .service import note_waiting, patient_client

    with patient_client(url) as client:
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
            show_job(handle, as_json=False)
        if handle.state in UNSUCCESSFUL:
            raise typer.Exit(1)


def cancel(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job; finished masks can still be downloaded."""
    from .service import interactive_client

    with interactive_client(url) as client:
        document = client.jobs.cancel(job).document
    print_result(document.model_dump(mode="json"), f"job {document.id} is {document.state.value}", as_json=as_json)


def delete(job: JobId, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Delete a job and its results."""
    from .service import interactive_client

    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        handle.delete()
    print_result({"id": handle.id, "deleted": True}, f"job {handle.id} is deleted", as_json=as_json)
