"""The pages' addresses."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from masksmith.benchmark import machine_line
from masksmith.patterns import PatternError
from masksmith_service.auth.principal import CallerDep
from masksmith_service.benchmarks.planning import read_report
from masksmith_service.jobs.access import JobId, read_document, read_job, read_masks_job, visible_job
from masksmith_service.layers.reader import find_layer
from masksmith_service.resources import State, StateDep
from masksmith_service.system.discovery import SOLVERS
from masksmith_state.queue import QUEUES
from masksmith_wire.documents import Job, JobState
from masksmith_wire.totals import total

from . import charts
from .choices import described, offered
from .comparison import agreement, pair_up
from .listing import find_jobs, list_layers
from .rendering import render

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Query(max_length=512)]


def statics() -> StaticFiles:
    """Serve the pages' own style, scripts and pictures."""
    return StaticFiles(directory=str(files(__package__) / "static"))


@router.get("/")
def show_home() -> HTMLResponse:
    """Show the form that starts a job."""
    return render("home.html", choices=offered(), solvers=SOLVERS)


@router.get("/compare")
def show_comparison(
    state: StateDep,
    caller: CallerDep,
    a: Annotated[str, Query(max_length=64)] = "",
    b: Annotated[str, Query(max_length=64)] = "",
    tensor: Text = "",
) -> HTMLResponse:
    """Show two jobs side by side, and two masks of one layer."""
    recent = find_jobs(state.records, None if caller.is_admin else caller.key, "masks", "", None).jobs
    jobs = [each for each in recent if each.state.is_terminal]
    chosen = [read_document(state, visible_job(each, state, caller)) if each else None for each in (a, b)]
    context: dict[str, Any] = {"jobs": jobs, "a": chosen[0], "b": chosen[1], "pairs": [], "seen": None}
    if chosen[0] is not None and chosen[1] is not None:
        context |= _compared(state, (chosen[0], chosen[1]), tensor)
    return render("compare.html", **context)


def _compared(state: State, jobs: tuple[Job, Job], tensor: str) -> dict[str, Any]:
    records = [read_masks_job(state, job.id) for job in jobs]
    pairs = pair_up(jobs[0], records[0], jobs[1], records[1])
    found: dict[str, Any] = {
        "pairs": pairs,
        "totals": [total(job.tensors) for job in jobs],
        "stored": [
            sum(side.stored_bytes or 0 for pair in pairs if (side := getattr(pair, name))) for name in ("a", "b")
        ],
        "dense": sum(pair.dense_bytes for pair in pairs),
    }
    seen = next((pair for pair in pairs if pair.name == tensor and pair.can_be_seen), None)
    if seen is None:
        return found
    layers = [find_layer(record, state.records, tensor) for record in records]
    reports = [side.report for side in (seen.a, seen.b) if side is not None]
    viewed = [(*each, layer.tile) for each, layer in zip(zip("AB", jobs, reports, strict=True), layers, strict=True)]
    common = agreement(layers[0], layers[1], state.store)
    return found | {"seen": tensor, "shape": layers[0].shape, "viewed": viewed, "common": common}


@router.get("/login")
def show_login() -> HTMLResponse:
    """Show the form that takes a key."""
    return render("login.html", problem=None)


@router.get("/pattern")
def show_pattern(
    pattern: Annotated[str, Query(max_length=100)],
    axis: Literal["in", "out"] = "in",
    ragged: Literal["pad", "dense", "error"] = "pad",
) -> HTMLResponse:
    """Show what a pattern allows, or why it is none."""
    try:
        return render("preview.html", choice=described(pattern, axis, ragged), error=None)
    except PatternError as error:
        return render("preview.html", choice=None, error=str(error))


@router.get("/jobs")
def show_jobs(
    state: StateDep,
    caller: CallerDep,
    q: Text = "",
    only: Literal["", "live", "queued", "running", "succeeded", "failed", "canceled"] = "",
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> HTMLResponse:
    """List jobs, workers and queues."""
    found = find_jobs(state.records, None if caller.is_admin else caller.key, q, only, after)
    onward = urlencode({"q": q, "only": only, "after": found.next}) if found.next else None
    # How busy the others are is for admins to know.
    queues = {name: state.records.queue_length(name) for name in QUEUES} if caller.is_admin else {}
    workers = state.records.workers.live() if caller.is_admin else None
    return render(
        "jobs.html", jobs=found.jobs, onward=onward, q=q, only=only, after=after, workers=workers, queues=queues,
        live=state.records.live_count(), states=["live", *JobState],
    )  # fmt: skip


@router.get("/jobs/{job}")
def show_job(
    job: JobId,
    state: StateDep,
    q: Text = "",
    sort: Annotated[str, Query(max_length=20)] = "",
    desc: bool = False,
    page: Annotated[int, Query(ge=1)] = 1,
) -> HTMLResponse:
    """Show a job and its layers."""
    found = read_document(state, job)
    if found.kind == "benchmark":
        report = read_report(read_job(state, job), state.records)
        machines = [machine_line(machine, report) for machine in report.machines]
        return render("benchmark.html", job=found, report=report, machines=machines, charts=charts.draw(report))
    layers = list_layers(found, q, sort, page, descending=desc)
    return render(
        "job.html", job=found, layers=layers, totals=total(found.tensors), q=q, query=_queries(q, sort, desc=desc)
    )


def _queries(q: str, sort: str, *, desc: bool) -> dict[str, str]:
    """The query that sorts by each column: a second time turns the order around."""
    columns = ("name", "shape", "retained", "gap", "kept", "status", "time")
    return {
        column: "?" + urlencode({"q": q, "sort": column} | ({"desc": "1"} if sort == column and not desc else {}))
        for column in columns
    }


@router.post("/jobs/{job}/cancel")
def cancel_from_page(job: JobId, state: StateDep) -> Response:
    """Cancel a job, and show it."""
    state.records.cancel(job)
    return RedirectResponse(f"/jobs/{job}", status_code=303)


@router.get("/jobs/{job}/layer")
def show_layer(job: JobId, state: StateDep, tensor: Text) -> HTMLResponse:
    """Show a layer's mask."""
    found = find_layer(read_masks_job(state, job), state.records, tensor)
    document = read_document(state, job)
    names = [each.name for each in document.tensors if each.status is not None]
    place = names.index(tensor)
    report = next(each for each in document.tensors if each.name == tensor)
    return render(
        "layer.html", job=document, report=report, shape=found.shape, tile=found.tile,
        before=names[place - 1] if place else None, after=names[place + 1] if place + 1 < len(names) else None,
    )  # fmt: skip
