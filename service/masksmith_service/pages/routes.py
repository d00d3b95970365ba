"""Routes of the web pages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import anyio.from_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from masksmith.benchmark import machine_line
from masksmith.patterns import PatternError
from masksmith_service.auth.principal import PrincipalDep
from masksmith_service.benchmarks.reports import read_report
from masksmith_service.jobs.access import (
    VisibleJobId,
    VisibleJobIdWithParts,
    read_document,
    read_job,
    read_masks_job,
    reserve_parts,
    visible_job_id,
)
from masksmith_service.jobs.listing import JobFilter, find_jobs, listed_owner
from masksmith_service.layers.reader import find_layer
from masksmith_service.resources import State, StateDep
from masksmith_service.system.discovery import SOLVERS
from masksmith_state.keys import Keys
from masksmith_state.queue import QUEUES
from masksmith_wire.documents import Job, JobState, JobSummary
from masksmith_wire.totals import total

from . import charts
from .choices import describe_pattern, offered_patterns
from .comparison import compare_masks, pair_layers
from .listing import list_layers
from .rendering import render

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Query(max_length=512)]
JOBS_PER_PAGE = 50


def static_files() -> StaticFiles:
    """Application that serves style sheets, scripts and images."""
    return StaticFiles(directory=str(files(__package__) / "static"))


@router.get("/")
def show_home(request: Request, state: StateDep) -> HTMLResponse:
    """Show the form that starts a job."""
    has_roots = bool(state.roots.settings)
    return render(request, "home.html", choices=offered_patterns(), solvers=SOLVERS, has_roots=has_roots)


@router.get("/compare")
def show_comparison(
    request: Request,
    state: StateDep,
    principal: PrincipalDep,
    a: Annotated[str, Query(max_length=64)] = "",
    b: Annotated[str, Query(max_length=64)] = "",
    tensor: Text = "",
) -> HTMLResponse:
    """Show the form that chooses two jobs, the layers of the chosen jobs, and the two masks of the chosen tensor."""
    ended_masks_jobs = JobFilter(kind="masks", states=[job_state for job_state in JobState if job_state.is_terminal])
    jobs = find_jobs(state.records, principal.visible_owner, ended_masks_jobs, None, JOBS_PER_PAGE).jobs
    ids = [visible_job_id(prefix, state, principal) if prefix else None for prefix in (a, b)]
    for job in ids:
        if job is not None:
            anyio.from_thread.run(reserve_parts, state, job, request.state.reservation)
    job_a, job_b = (read_document(state, job) if job else None for job in ids)
    context: dict[str, Any] = {"jobs": jobs, "a": job_a, "b": job_b, "pairs": [], "compared_tensor": None}
    if job_a is not None and job_b is not None:
        context |= _comparison_context(state, (job_a, job_b), tensor)
    return render(request, "compare.html", **context)


def _comparison_context(state: State, jobs: tuple[Job, Job], tensor: str) -> dict[str, Any]:
    """Return the template's variables for two jobs, and for the two masks of a tensor if the masks can be compared."""
    records = [read_masks_job(state, job.id) for job in jobs]
    pairs = pair_layers(jobs[0], records[0], jobs[1], records[1])
    context: dict[str, Any] = {
        "pairs": pairs,
        "totals": [total(job.tensors) for job in jobs],
        "stored": [
            sum(side.stored_bytes or 0 for pair in pairs if (side := getattr(pair, name))) for name in ("a", "b")
        ],
        "dense": sum(pair.dense_bytes for pair in pairs),
    }
    pair = next((pair for pair in pairs if pair.name == tensor and pair.is_comparable), None)
    if pair is None or pair.a is None or pair.b is None:
        return context
    layer_a, layer_b = (find_layer(record, state.records, tensor) for record in records)
    if layer_a.shape != layer_b.shape:  # The tensor has different layouts in the two jobs.
        return context
    views = [("A", jobs[0], pair.a.report, layer_a.tiling), ("B", jobs[1], pair.b.report, layer_b.tiling)]
    overlap = compare_masks(layer_a, layer_b, state.store)
    return context | {"compared_tensor": tensor, "shape": layer_a.shape, "views": views, "overlap": overlap}


@router.get("/login")
def show_login(request: Request) -> HTMLResponse:
    """Show the form that takes a key."""
    return render(request, "login.html", problem=None)


@router.get("/pattern")
def show_pattern(
    request: Request,
    pattern: Annotated[str, Query(max_length=100)],
    axis: Literal["in", "out"] = "in",
    ragged: Literal["pad", "dense", "error"] = "pad",
) -> HTMLResponse:
    """Show an example mask of a pattern, or why the pattern is invalid."""
    try:
        return render(request, "preview.html", choice=describe_pattern(pattern, axis, ragged), error=None)
    except PatternError as error:
        return render(request, "preview.html", choice=None, error=str(error))


@router.get("/jobs")
def show_jobs(
    request: Request,
    state: StateDep,
    principal: PrincipalDep,
    q: Text = "",
    only: Literal["", "live", "queued", "running", "succeeded", "failed", "canceled"] = "",
    key: Text = "",
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> HTMLResponse:
    """List jobs; for an admin also workers and queues."""
    states = [
        job_state for job_state in JobState if job_state == only or (only == "live" and not job_state.is_terminal)
    ]
    owner = listed_owner(state.records, principal, key or None)
    page = find_jobs(state.records, owner, JobFilter(text=q, states=states), after, JOBS_PER_PAGE)
    older_query = urlencode({"q": q, "only": only, "key": key, "after": page.next}) if page.next else None
    # Only admins may see the load of the installation.
    queues = {name: state.records.schedule.depth(name) for name in QUEUES} if principal.is_admin else {}
    workers = state.records.workers.live() if principal.is_admin else None
    return render(
        request, "jobs.html", jobs=page.jobs, older_query=older_query, q=q, only=only, key=key, after=after,
        workers=workers, owners=_owners(state, page.jobs) if principal.is_admin else {},
        queues=queues, live=state.records.live_count(), states=["live", *JobState],
    )  # fmt: skip


def _owners(state: State, jobs: Sequence[JobSummary]) -> dict[str, str]:
    """Return the names of the keys that jobs belong to, by the key's id; if a key is not found, its id is the name."""
    keys = Keys(state.records.redis)
    owners = {job.key: keys.get(job.key) for job in jobs if job.key is not None}
    return {key: key if info is None else info.name for key, info in owners.items()}


@router.get("/jobs/{job}")
def show_job(
    request: Request,
    job: VisibleJobIdWithParts,
    state: StateDep,
    q: Text = "",
    sort: Annotated[str, Query(max_length=20)] = "",
    desc: bool = False,
    page: Annotated[int, Query(ge=1)] = 1,
) -> HTMLResponse:
    """Show a job and its layers, or a benchmark and its report."""
    document = read_document(state, job)
    if document.kind == "benchmark":
        report = read_report(read_job(state, job), state.records)
        machines = [machine_line(machine, report) for machine in report.machines]
        return render(
            request,
            "benchmark.html",
            job=document,
            report=report,
            machines=machines,
            charts=charts.compute_charts(report),
        )
    layers = list_layers(document, q, sort, page, descending=desc)
    return render(
        request,
        "job.html",
        job=document,
        layers=layers,
        totals=total(document.tensors),
        q=q,
        query=_queries(q, sort, desc=desc),
    )


def _queries(q: str, sort: str, *, desc: bool) -> dict[str, str]:
    """Return, for each column, the query that sorts the list by this column.

    The query sorts in ascending order; if the list has this order already, the query sorts in descending order.
    """
    queries = {}
    for column in ("name", "shape", "retained", "gap", "kept", "status", "time"):
        query = {"q": q, "sort": column}
        if column == sort and not desc:
            query["desc"] = "1"
        queries[column] = "?" + urlencode(query)
    return queries


@router.post("/jobs/{job}/cancel")
def cancel_from_page(job: VisibleJobId, state: StateDep) -> Response:
    """Cancel a job, and show it."""
    state.records.cancel(job)
    return RedirectResponse(f"../{job}", status_code=303)


@router.get("/jobs/{job}/layer")
def show_layer(request: Request, job: VisibleJobIdWithParts, state: StateDep, tensor: Text) -> HTMLResponse:
    """Show a layer's mask, with links to the layers before and after it that have masks."""
    layer = find_layer(read_masks_job(state, job), state.records, tensor)
    document = read_document(state, job)
    names = [report.name for report in document.tensors if report.status is not None]
    index = names.index(tensor)
    report = next(report for report in document.tensors if report.name == tensor)
    return render(
        request, "layer.html", job=document, report=report, shape=layer.shape, tiling=layer.tiling,
        before=names[index - 1] if index else None, after=names[index + 1] if index + 1 < len(names) else None,
    )  # fmt: skip
